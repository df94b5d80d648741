// Package snapshot is the memory of a cell: it is taken once as an Image, and after each event made
// what it was, by restoring only what the event wrote.
//
// An Allocator is opened once in a process and makes a Memory for each instance. A Memory is the
// linear memory that wazero uses; Take keeps its content as an Image; Fill makes the memory of a new
// instance equal to an Image, and Reset makes it so again. How the written pages are found is a
// Method: the best one that this system can do is tried out, not guessed from a version, when the
// Allocator is opened.
//
// The invariants, each with a test that tries to break it by brute force:
//
//   - After Fill or Reset has returned nil, the memory equals the image, byte for byte.
//   - A page that was written since is restored by the next Reset: whoever wrote it (compiled code,
//     a host function, a guest that trapped or was stopped), and however often it was written before.
//     Restoring a page that was not written is allowed, and costs time only.
//   - A memory that has grown is not reset: Reset returns ErrGrown, and the instance is discarded.
//     After any error of Reset the memory is refused until it is filled again.
//   - A memory starts as zero bytes, also when it lies where another one was. One that is to be filled from an
//     image (Of) may start as that image instead.
//   - An Image is never written to, and may be used by any number of memories at once.
//
// What the callers MUST keep to:
//
//   - One memory is used by one goroutine at a time, and no call into the instance runs during Fill,
//     Reset or Release.
//   - No system call is given the memory to write into. The tracked method sees what processors
//     write through the process's page tables, which is all that Go and compiled code do; a device or
//     a registered buffer of io_uring would go past them. Nothing in a cell does that: it has neither
//     files nor sockets, and what host functions hand over they copy from memory of Go's.
//   - The memory is not remapped or unmapped but by Release, and the process is not forked other than
//     to start a program.
//
// A live memory takes one or two of the process's mappings (vm.max_map_count), none of Go's heap but
// 24 bytes a page for its table, and no file descriptor with the tracked method, which has two for
// all of them.
//
// This is the one package of the product that uses unsafe: the kernel is told addresses and answers
// with addresses. Every use is in a file whose name ends in _linux.go, and says why it is right.
// Callers: cell.
package snapshot

import (
	"errors"
	"fmt"
	"sync"
)

// Method is how a memory is reset. The zero value asks for the best one.
type Method int

// The methods, best first.
const (
	// Best is the first of the others that works here.
	Best Method = iota
	// Tracked has the kernel note which pages are written (Linux 6.7 and later).
	Tracked
	// CopyOnWrite maps the image, has the kernel copy what is written, and drops the copies. A
	// memory of at most copyBytes is copied whole instead, which is faster.
	CopyOnWrite
	// Copy writes the whole memory again.
	Copy
)

// String returns the name of m, as doctor shows it.
func (m Method) String() string {
	switch m {
	case Tracked:
		return "tracked"
	case CopyOnWrite:
		return "copy-on-write"
	case Copy:
		return "copy"
	}
	return "best"
}

// Explain returns what m does, as a sentence for an operator.
func (m Method) Explain() string {
	switch m {
	case Tracked:
		return "the kernel notes which pages an event wrote, and only these are restored"
	case CopyOnWrite:
		return "small memories are copied whole after each event, and large ones are mapped copy-on-write"
	case Copy:
		return "all memory of a function is copied after each event, which is slow when it is large"
	}
	return "the best method that this system can do"
}

// Errors of a memory.
var (
	// ErrUnsupported is returned by Open for a method that this system cannot do.
	ErrUnsupported = errors.New("the system does not support it")
	// ErrGrown is returned by Reset when the memory is larger than its image.
	ErrGrown = errors.New("the memory has grown")
	// ErrNotFilled is returned by Reset when there is nothing to reset to.
	ErrNotFilled = errors.New("the memory was not filled from an image")
	// ErrSize is returned by Fill when memory and image differ in size.
	ErrSize = errors.New("the memory does not have the size of the image")
)

// engine is a method at work.
type engine interface {
	// prepare readies address space that was just reserved.
	prepare(space []byte) error
	// fill makes memory, the beginning of a reservation, equal to im. Reservations of which nothing
	// was touched read as zero.
	fill(memory []byte, im *Image) (resetter, error)
	// close gives back what the engine holds.
	close() error
}

// resetter resets one memory.
type resetter interface {
	// reset makes the memory equal to its image, and returns how many pages it wrote.
	reset() (int, error)
	// end stops. It reports whether the reservation can be cleared and used again.
	end() bool
}

// Allocator makes memories. It is safe for concurrent use.
type Allocator struct {
	method Method
	why    error
	engine engine

	mu     sync.Mutex
	spare  []spare // reservations for the next memories, the last that was kept at the end
	closed bool
}

// Open returns an allocator that resets with the given method, or with the best that works when it
// is Best. It opens all files that the method needs, so that the process may give up its right to
// open files afterwards; the system calls needed then are mmap, munmap, madvise and ioctl, and for
// CopyOnWrite memfd_create, ftruncate, pwrite and close.
func Open(method Method) (*Allocator, error) {
	if method < Best || method > Copy {
		return nil, fmt.Errorf("open memory allocator: method %d is unknown", int(method))
	}
	var faults []error
	for m := Tracked; m <= Copy; m++ {
		if method != Best && method != m {
			continue
		}
		engine, err := open(m)
		if err == nil {
			return &Allocator{method: m, why: errors.Join(faults...), engine: engine}, nil
		}
		faults = append(faults, fmt.Errorf("%s: %w", m, err))
	}
	return nil, fmt.Errorf("open memory allocator: %w", errors.Join(faults...))
}

// open starts a method, and tries it out.
func open(m Method) (engine, error) {
	switch m {
	case Tracked:
		return openTracked()
	case CopyOnWrite:
		return openCopyOnWrite()
	}
	return copying{}, nil
}

// Method returns the method in use.
func (a *Allocator) Method() Method { return a.method }

// Why returns why no better method is in use, naming the system call that failed; nil when there
// is none better, or when the method was asked for.
func (a *Allocator) Why() error { return a.why }

// New returns a memory that grows to at most limit bytes. It holds nothing until it grows.
func (a *Allocator) New(limit int64) *Memory {
	return &Memory{allocator: a, limit: uint64(max(limit, 0))}
}

// Of returns a memory like New does, which the caller MUST fill from im before anybody reads it. It may be that image
// already, in part or whole, or zero.
func (a *Allocator) Of(limit int64, im *Image) *Memory {
	m := a.New(limit)
	m.expected = im
	return m
}

// Close gives back what the allocator holds. No memory of it may be in use. It is idempotent.
func (a *Allocator) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	for _, s := range a.spare {
		s.free()
	}
	a.spare = nil
	return a.engine.close()
}
