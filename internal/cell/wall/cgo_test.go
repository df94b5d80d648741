//go:build cgo

package wall_test

import (
	"errors"
	"testing"

	"sallyport/internal/cell/wall"
)

// TestCgo: a program that was built with cgo, as this test is under the race detector, says so and starts no worker, which would abort.
func TestCgo(t *testing.T) {
	t.Parallel()
	engine, err := wall.New(t.Context(), wall.Default("cell-worker"))
	if !errors.Is(err, wall.ErrCgo) {
		t.Errorf("New = %v, %v; want ErrCgo", engine, err)
	}
}
