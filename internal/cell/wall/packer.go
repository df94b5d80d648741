package wall

import (
	"io"
	"sync"
)

// maxQueued is how much may wait to be written before a sender waits too, in bytes.
const maxQueued = 4 << 20

// keptBuffer is the largest buffer that is kept for the next frames, in bytes.
const keptBuffer = 1 << 20

// packer writes frames. Whoever comes first writes; what others send in the meantime goes with the
// next write, all of it at once. So a frame that is alone is written at once by its sender, and under
// load many frames share a system call.
type packer struct {
	to io.Writer

	mu   sync.Mutex
	room sync.Cond
	// ahead is what is to be written before queue, and aheadBytes how long that is.
	ahead      [][]byte
	aheadBytes int
	queue      []byte
	spare      []byte
	writing    bool
	err        error
}

func newPacker(to io.Writer) *packer {
	p := &packer{to: to}
	p.room.L = &p.mu
	return p
}

// send has encode append a frame to what is written next. An error is that of an earlier write, or
// of this one: then nothing can be sent any more.
func (p *packer) send(encode func(b []byte) []byte) error { return p.sendAfter(nil, encode) }

// sendAfter does so, after the bytes of long, with nothing between them. They are not copied, and MUST NOT change any more.
func (p *packer) sendAfter(long [][]byte, encode func(b []byte) []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.aheadBytes+len(p.queue) > maxQueued && p.err == nil {
		p.room.Wait()
	}
	if p.err != nil {
		return p.err
	}
	if len(long) > 0 {
		p.pass(p.queue)
		p.queue = nil
		for _, b := range long {
			p.pass(b)
		}
	}
	p.queue = encode(p.queue)
	if p.writing {
		return nil
	}
	p.writing = true
	for p.aheadBytes+len(p.queue) > 0 && p.err == nil {
		ahead, batch := p.ahead, p.queue
		p.ahead, p.aheadBytes, p.queue, p.spare = nil, 0, p.spare[:0], nil
		p.mu.Unlock()
		err := p.write(append(ahead, batch))
		p.mu.Lock()
		p.err = err
		if cap(batch) <= keptBuffer {
			p.spare = batch
		}
		p.room.Broadcast()
	}
	p.writing = false
	return p.err
}

// pass has b written ahead of what is queued from now on. p.mu is held.
func (p *packer) pass(b []byte) {
	if len(b) > 0 {
		p.ahead = append(p.ahead, b)
		p.aheadBytes += len(b)
	}
}

func (p *packer) write(pieces [][]byte) error {
	for _, b := range pieces {
		if len(b) == 0 {
			continue
		}
		if _, err := p.to.Write(b); err != nil {
			return err
		}
	}
	return nil
}
