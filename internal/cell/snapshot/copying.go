package snapshot

import "bytes"

// copying is the method Copy: it writes the whole memory again. Where the image is zero it looks
// before it writes, so that memory no one has touched stays untouched and takes no room.
type copying struct{}

func (copying) prepare([]byte) error { return nil }

func (copying) close() error { return nil }

func (copying) fill(memory []byte, im *Image) (resetter, error) {
	c := copied{memory, im}
	_, err := c.reset()
	return c, err
}

// copied is a memory that is reset by copying.
type copied struct {
	memory []byte
	image  *Image
}

func (c copied) reset() (int, error) {
	written := 0
	for at := 0; at < len(c.memory); {
		from, until := c.image.segment(at, len(c.memory))
		if from != nil {
			copy(c.memory[at:until], from)
			written += until - at
		} else {
			written += zero(c.memory[at:until])
		}
		at = until
	}
	return (written + pageBytes - 1) / pageBytes, nil
}

func (c copied) end() bool { return true }

// zero makes b zero, and returns how many bytes it wrote to.
func zero(b []byte) (written int) {
	for len(b) > 0 {
		n := min(len(b), pageBytes)
		if !isZero(b[:n]) {
			clear(b[:n])
			written += n
		}
		b = b[n:]
	}
	return written
}

// isZero reports whether b, which is not empty, is zero: its first byte is, and each is like the one
// before it.
func isZero(b []byte) bool {
	return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
