package wall_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"sallyport/internal/cell/wall"
)

// gate is a writer whose first write waits until it is opened.
type gate struct {
	reached, open chan struct{}
	once          sync.Once
	got           bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() {
		close(g.reached)
		<-g.open
	})
	return g.got.Write(p)
}

// TestPackerKeepsOrder: what is sent while another writes is written in the order in which it came, and a long piece together with
// the frame that it comes before.
func TestPackerKeepsOrder(t *testing.T) {
	t.Parallel()
	g := &gate{reached: make(chan struct{}), open: make(chan struct{})}
	p := wall.NewPacker(g)
	text := func(s string) func([]byte) []byte { return func(b []byte) []byte { return append(b, s...) } }
	first := make(chan error, 1)
	go func() { first <- p.SendAfter(nil, text("first ")) }()
	<-g.reached
	want := "first "
	for i := range 3 {
		for _, err := range []error{
			p.SendAfter(nil, text(fmt.Sprintf("before%d ", i))),
			p.SendAfter([][]byte{[]byte("long"), nil, []byte("er ")}, text(fmt.Sprintf("frame%d ", i))),
			p.SendAfter(nil, text(fmt.Sprintf("after%d ", i))),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		want += fmt.Sprintf("before%d longer frame%d after%d ", i, i, i)
	}
	close(g.open)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if got := g.got.String(); got != want {
		t.Errorf("written = %q; want %q", got, want)
	}
}
