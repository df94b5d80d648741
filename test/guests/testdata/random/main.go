// Command random is a function that replies with what it draws at random, in every way a Go program
// draws without a seed of its own. One of its numbers is drawn in initialisation, for comparison, and
// it counts what it handles, which it rehearses once.
package main

import (
	cryptorand "crypto/rand"
	"hash/maphash"
	mathrand "math/rand"
	"math/rand/v2"
	"strings"

	guest "sallyport/sdk/go"
)

// drawn is what one event draws.
type drawn struct {
	AtStart, Own               uint64
	Rand, RandV2, Hash, Crypto uint64
	Order, NewOrder, Chosen    string
	Handled                    int
}

var (
	atStart = rand.Uint64()
	own     = rand.New(rand.NewPCG(1, 2))
	letters = map[string]bool{}
	handled int
)

func init() {
	for c := 'a'; c <= 'z'; c++ {
		letters[string(c)] = true
	}
	guest.OnReseed(func() { own = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) })
	guest.Handle(draw)
	guest.Rehearse(`{"specversion":"1.0","id":"1","source":"/","type":"test.happened"}`)
}

func main() {}

func draw(ctx *guest.Context, _ *guest.Event) (any, error) {
	handled++
	ctx.Infof("handled %d", handled)
	d := drawn{Handled: handled, AtStart: atStart, Own: own.Uint64(), Rand: mathrand.Uint64(), RandV2: rand.Uint64(), Hash: maphash.String(maphash.MakeSeed(), "x")}
	var bytes [8]byte
	if _, err := cryptorand.Read(bytes[:]); err != nil {
		return nil, err
	}
	for _, b := range bytes {
		d.Crypto = d.Crypto<<8 | uint64(b)
	}
	d.Order = order(letters)
	copied := map[string]bool{}
	for c := range letters {
		copied[c] = true
	}
	d.NewOrder = order(copied)
	d.Chosen = chosen()
	return d, nil
}

func order(m map[string]bool) string {
	var b strings.Builder
	for c := range m {
		b.WriteString(c)
	}
	return b.String()
}

// chosen has select choose one of two ready channels 64 times.
func chosen() string {
	a, b := make(chan int), make(chan int)
	close(a)
	close(b)
	var all strings.Builder
	for range 64 {
		select {
		case <-a:
			all.WriteByte('a')
		case <-b:
			all.WriteByte('b')
		}
	}
	return all.String()
}
