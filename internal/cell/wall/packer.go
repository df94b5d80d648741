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

	mu      sync.Mutex
	room    sync.Cond
	queue   []byte
	spare   []byte
	writing bool
	err     error
}

func newPacker(to io.Writer) *packer {
	p := &packer{to: to}
	p.room.L = &p.mu
	return p
}

// send has encode append a frame to what is written next. An error is that of an earlier write, or
// of this one: then nothing can be sent any more.
func (p *packer) send(encode func(b []byte) []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > maxQueued && p.err == nil {
		p.room.Wait()
	}
	if p.err != nil {
		return p.err
	}
	p.queue = encode(p.queue)
	if p.writing {
		return nil
	}
	p.writing = true
	for len(p.queue) > 0 && p.err == nil {
		batch := p.queue
		p.queue, p.spare = p.spare[:0], nil
		p.mu.Unlock()
		_, err := p.to.Write(batch)
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
