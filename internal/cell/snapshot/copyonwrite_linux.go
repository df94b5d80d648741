//go:build linux && (amd64 || arm64)

package snapshot

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// copyBytes is the size of the largest memory that CopyOnWrite copies whole, in bytes: dropping the
// copies of a larger one, and the faults for them at the next event, cost less.
const copyBytes = 4 << 20

// mapper is the engine of the method CopyOnWrite. An image is a file in memory, which the memories
// of all its instances map privately: the kernel copies a page when it is written, and drops the
// copies when it is told that they are not needed.
type mapper struct {
	mu    sync.Mutex
	files map[*Image]*file
}

// file is an image as a file.
type file struct {
	fd    int
	users int // memories that are mapped from it
}

func openCopyOnWrite() (engine, error) {
	m := &mapper{files: map[*Image]*file{}}
	if err := m.try(); err != nil {
		return nil, err
	}
	return m, nil
}

// try does all that a memory needs, once.
func (m *mapper) try() error {
	space, err := reserve(wasmPage)
	if err != nil {
		return fmt.Errorf("reserve memory: %w", err)
	}
	defer unreserve(space)
	content := make([]byte, wasmPage)
	content[0] = 1
	im, err := Take(content, nil)
	if err != nil {
		return err
	}
	reset, err := m.mapImage(space, im)
	if err != nil {
		return err
	}
	defer reset.end()
	space[0] = 2
	if _, err := reset.reset(); err != nil {
		return err
	}
	if !im.equal(space) {
		return errors.New("memory mapped copy-on-write kept what was written")
	}
	return nil
}

func (m *mapper) prepare([]byte) error { return nil }

func (m *mapper) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var faults []error
	for _, f := range m.files {
		faults = append(faults, unix.Close(f.fd))
	}
	m.files = nil
	return errors.Join(faults...)
}

func (m *mapper) fill(memory []byte, im *Image) (resetter, error) {
	if len(memory) <= copyBytes {
		return copying{}.fill(memory, im)
	}
	return m.mapImage(memory, im)
}

// mapImage maps im over memory.
func (m *mapper) mapImage(memory []byte, im *Image) (*mapped, error) {
	fd, err := m.open(im)
	if err != nil {
		return nil, err
	}
	// unsafe: the range is all or the beginning of a reservation of ours, whose content is to be
	// replaced; it stays mapped for as long as it was, readable and writable.
	at := unsafe.Pointer(unsafe.SliceData(memory))
	_, err = unix.MmapPtr(fd, 0, at, uintptr(len(memory)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mmap the image: %w", err), m.drop(im))
	}
	return &mapped{mapper: m, memory: memory, image: im}, nil
}

// open returns the file of im, which the caller drops once.
func (m *mapper) open(im *Image) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.files[im]
	if f == nil {
		fd, err := writeFile(im)
		if err != nil {
			return -1, err
		}
		f = &file{fd: fd}
		m.files[im] = f
	}
	f.users++
	return f.fd, nil
}

// drop closes the file of im with its last user.
func (m *mapper) drop(im *Image) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.files[im]
	if f.users--; f.users > 0 {
		return nil
	}
	delete(m.files, im)
	return unix.Close(f.fd)
}

// writeFile returns a new file in memory that holds im. Where the image is zero, it has holes.
func writeFile(im *Image) (fd int, err error) {
	fd, err = unix.MemfdCreate("sallyport image", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	if err := unix.Ftruncate(fd, int64(im.size)); err != nil {
		return -1, fmt.Errorf("ftruncate: %w", err)
	}
	for at := 0; at < im.size; {
		content, until := im.segment(at, im.size)
		for len(content) > 0 {
			n, err := unix.Pwrite(fd, content, int64(until-len(content)))
			if err != nil && !errors.Is(err, unix.EINTR) {
				return -1, fmt.Errorf("pwrite: %w", err)
			}
			content = content[max(n, 0):]
		}
		at = until
	}
	return fd, nil
}

// mapped is one memory.
type mapped struct {
	mapper *mapper
	memory []byte
	image  *Image
}

func (m *mapped) reset() (int, error) {
	if err := unix.Madvise(m.memory, unix.MADV_DONTNEED); err != nil {
		return 0, fmt.Errorf("madvise(MADV_DONTNEED): %w", err)
	}
	return 0, nil
}

// end leaves the mapping for the one who unmaps all of the reservation: there is no telling what in
// it comes from the image, so it is not used again.
func (m *mapped) end() bool {
	if err := m.mapper.drop(m.image); err != nil {
		panic(fmt.Sprintf("BUG: close the file of an image: %v", err))
	}
	return false
}
