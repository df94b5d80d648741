package guest_test

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	guest "sallyport/sdk/go"
)

// generators is memory with several states like the runtime's in it, and their numbers as words.
// rand.ChaCha8 begins with the state that the runtime has, which is what the search relies on.
func generators(n int) ([]rand.ChaCha8, []uint64) {
	states := make([]rand.ChaCha8, n)
	for i := range states {
		states[i].Seed([32]byte{byte(i)})
	}
	size := int(unsafe.Sizeof(states[0])) * n / 8
	return states, unsafe.Slice((*uint64)(unsafe.Pointer(&states[0])), size)
}

func TestGeneratorIsFound(t *testing.T) {
	t.Parallel()
	for before := range 200 { // wherever the cursor stands, over several blocks
		states, memory := generators(5)
		mine := &states[3]
		for range before {
			mine.Uint64()
		}
		memory[7] = 0 // a gap in another state
		others := states[4]
		g, ok := guest.FindGenerator(memory, mine.Uint64)
		if !ok {
			t.Fatalf("the generator is not found after %d numbers", before)
		}
		if states[4] != others {
			t.Fatalf("after %d numbers, another generator was changed", before)
		}
		g.Rekey([4]uint64{1, 2, 3, 4})
		first := mine.Uint64()
		g.Rekey([4]uint64{1, 2, 3, 5})
		if other := mine.Uint64(); other == first {
			t.Fatalf("two keys draw the same number %d", first)
		}
		g.Rekey([4]uint64{1, 2, 3, 4})
		if again := mine.Uint64(); again != first {
			t.Fatalf("one key draws %d and then %d", first, again)
		}
	}
}

func TestGeneratorIsNotFound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		draw func(states []rand.ChaCha8) func() uint64
	}{
		{"elsewhere", func([]rand.ChaCha8) func() uint64 { return rand.NewChaCha8([32]byte{9}).Uint64 }},
		{"repeats what another drew", func(states []rand.ChaCha8) func() uint64 {
			copied := states[1]
			states[1].Uint64()
			return copied.Uint64
		}},
		{"changes what it draws", func(states []rand.ChaCha8) func() uint64 {
			n := 0
			return func() uint64 {
				if n++; n > 4 {
					return ^states[1].Uint64()
				}
				return states[1].Uint64()
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			states, memory := generators(3)
			draw := tt.draw(states)
			if _, ok := guest.FindGenerator(memory, draw); ok {
				t.Error("a generator is found; want none")
			}
			if states[0] != *rand.NewChaCha8([32]byte{0}) || states[2] != *rand.NewChaCha8([32]byte{2}) {
				t.Error("a generator that was not drawn from was changed")
			}
		})
	}
}

func TestCheapGenerator(t *testing.T) {
	t.Parallel()
	memory := make([]uint64, 39)
	memory[38] = 0x0123456789abcdef
	if guest.HasCheap(memory, func() {}) || guest.HasCheap(memory, func() { memory[38]++ }) {
		t.Error("a word that does not move like the generator is taken for it")
	}
	memory[38] = 0x0123456789abcdef
	// By hand: s1 = 0x89abcdef, s0 = 0x01234567; s1 ^= s1<<17 is 0x1275cdef.
	if !guest.HasCheap(memory, func() { memory[38] = uint64(0x1275cdef^0x01234567^0x1275cdef>>7^0x01234567>>16)<<32 | 0x01234567 }) {
		t.Error("one step of the generator is not recognised")
	}
}
