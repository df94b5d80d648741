//go:build race

package cell_test

// underRace is true when the race detector runs. It makes each event several times slower, and sees
// nothing of what guests do in their memories.
const underRace = true
