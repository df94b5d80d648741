//go:build linux && (amd64 || arm64)

package snapshot

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The method Tracked. One userfaultfd serves all memories of the process: a range that is registered
// with it in write-protect-async mode can be protected, and the first write to a protected page
// costs a fault in which the kernel takes the protection away and lets the write go on. So a page
// that is not protected may have been written, and PAGEMAP_SCAN lists these.
//
// Reset compares every page that is not protected with the image, restores it if it differs, and
// leaves it unprotected: the pages that every event writes cost a fault once, and no more than a copy
// each time. (Comparing and then copying takes as long as copying: the caches are the limit.) When
// the pages that were compared for nothing have cost as much as protecting all pages and the faults
// that may follow, all pages are protected. So what is not protected follows what the function does,
// and the cost is at most about twice that of knowing what events will write.
//
// Some pages are written by every event and are in the end what they were: counts of references go up and down
// again. To protect these is in vain. The first reset after pages were protected finds only what was written, and so tells
// how many there are; as many count for a small part of a page only (habitualPart). A burst is not taken for a
// habit: the number counts that was found twice in turn.
//
// Which pages to restore is recorded nowhere but in the page tables: nothing that is decided here
// can leave a written page as it is.
const (
	// protectCost is half of what it costs to protect a memory, and faultCost half of what a fault
	// costs when a protected page is written, in pages that are compared. Half, because most of the
	// pages that are compared for nothing are those of events before, and will not fault.
	protectCost = 8
	faultCost   = 4
	// habitualPart is how many pages that are written in vain by habit count as one.
	habitualPart = 32
	// minFound and maxFound bound the room for what one scan finds, in regions. The kernel allocates
	// as much for every scan.
	minFound, maxFound = 64, 512
)

// kernel is the engine of the method Tracked.
type kernel struct {
	page    int // the size of the hardware's pages, in bytes
	uffd    int // the userfaultfd
	pagemap int // /proc/self/pagemap
}

func openTracked() (engine, error) {
	k := &kernel{page: unix.Getpagesize(), uffd: -1, pagemap: -1}
	if err := k.open(); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func (k *kernel) open() (err error) {
	if k.uffd, err = userfaultfd(); err != nil {
		return err
	}
	if k.pagemap, err = unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /proc/self/pagemap: %w", err)
	}
	return k.try()
}

// try does all that a memory needs, once: what it returns nil for works here.
func (k *kernel) try() error {
	space, err := reserve(2 * wasmPage)
	if err != nil {
		return fmt.Errorf("reserve memory: %w", err)
	}
	defer unreserve(space)
	if err := k.prepare(space); err != nil {
		return err
	}
	content := make([]byte, len(space))
	content[0] = 1
	im, err := Take(content, nil)
	if err != nil {
		return err
	}
	for _, dense := range []int{wasmPage, 0} {
		if err := k.tryReset(space, im, dense); err != nil {
			return err
		}
	}
	return nil
}

// tryReset resets a memory twice, the second time with pages that are not protected.
func (k *kernel) tryReset(memory []byte, im *Image, dense int) error {
	t, err := k.track(memory, im, dense)
	if err != nil {
		return err
	}
	for range 2 {
		memory[0], memory[len(memory)-1] = 2, 2
		pages, err := t.reset()
		if err != nil {
			return err
		}
		if pages != 2 || !im.equal(memory) {
			return fmt.Errorf("the kernel found %d of 2 pages that were written, or the memory was not restored", pages)
		}
	}
	return nil
}

func (k *kernel) close() error {
	var faults []error
	for _, fd := range []int{k.uffd, k.pagemap} {
		if fd >= 0 {
			faults = append(faults, unix.Close(fd))
		}
	}
	return errors.Join(faults...)
}

// prepare has the kernel watch space. With huge pages, one byte written where nobody has written
// before would be two megabytes to compare: 90 µs at every reset, where it is 5 µs now.
func (k *kernel) prepare(space []byte) error {
	if err := unix.Madvise(space, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("madvise(MADV_NOHUGEPAGE): %w", err) // EINVAL: a kernel without huge pages
	}
	return k.register(space)
}

func (k *kernel) fill(memory []byte, im *Image) (resetter, error) {
	return k.track(memory, im, denseBytes(im))
}

// denseBytes returns how much of a memory is to be dense: all of a small one, otherwise up to the
// last page that the image has, if it has a good part of them.
func denseBytes(im *Image) int {
	const small, part = 4 << 20, 4
	if im.size <= small {
		return im.size
	}
	held, last := im.extent()
	last = (last + wasmPage - 1) / wasmPage * wasmPage
	if held < last/part {
		return 0
	}
	return last
}

// track makes memory equal to im, and protects it.
func (k *kernel) track(memory []byte, im *Image, dense int) (*tracked, error) {
	t := &tracked{kernel: k, memory: memory, image: im, pages: im.pages(k.page), dense: dense, found: make([]region, minFound)}
	if err := t.write(); err != nil {
		return nil, err
	}
	return t, t.protect()
}

// tracked is one memory.
type tracked struct {
	kernel *kernel
	memory []byte
	image  *Image
	pages  *pageList // of the image
	// dense is how much of the memory, from its beginning, has all its pages protected, also those
	// that do not exist, which makes scanning it twice as fast. In the rest, pages that do not exist
	// are neither protected nor scanned.
	dense int
	found []region // room for what a scan finds
	// wasted is how many pages were compared for nothing since the memory was protected, in parts of a page.
	wasted int
	// fresh is true from when the memory was protected until the next reset.
	fresh bool
	// vain is how many of the pages that the first reset after that found were what they had been, and habitual the
	// same or fewer: the least of the last two times.
	vain, habitual int
}

// span is a part of the memory.
type span struct{ at, end int }

// pages returns how many pages of a size s has.
func (s span) pages(size int) int { return (s.end - s.at) / size }

// write makes the memory what the image is. Pages that do not exist read as zero, and the zero pages
// of the image among them stay so.
func (t *tracked) write() error {
	if err := t.kernel.writeProtect(t.memory, false); err != nil {
		return err
	}
	done := 0
	err := t.each(span{0, len(t.memory)}, existing(), func(s span, _ bool) error {
		t.create(span{done, s.at})
		t.image.read(t.memory[s.at:s.end], s.at)
		done = s.end
		return nil
	})
	t.create(span{done, len(t.memory)})
	return err
}

// create makes the pages of s, none of which exists, what they are in the image. What the image
// has in one piece is put there by the kernel, which saves a fault for every page.
func (t *tracked) create(s span) {
	for at := s.at; at < s.end; {
		content, until := t.image.segment(at, s.end)
		skip := -at & (t.kernel.page - 1) // up to the next page
		if whole := (len(content) - skip) &^ (t.kernel.page - 1); whole > 0 {
			copy(t.memory[at:], content[:skip])
			n := t.kernel.create(t.memory[at+skip:], content[skip:skip+whole])
			copy(t.memory[at+skip+n:], content[skip+n:])
		} else {
			copy(t.memory[at:until], content)
		}
		at = until
	}
}

// protect protects all of the memory, which equals the image. Behind the dense part, it gives back
// the pages that the image has nothing of instead: no event may need as much again.
func (t *tracked) protect() error {
	t.wasted, t.fresh = 0, true
	if t.dense > 0 {
		if err := t.kernel.protectAll(t.memory[:t.dense]); err != nil {
			return err
		}
	}
	return t.each(span{t.dense, len(t.memory)}, protectExisting(), func(s span, _ bool) error {
		if !t.isZero(s) {
			return nil
		}
		if err := unix.Madvise(t.memory[s.at:s.end], unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("madvise(MADV_DONTNEED): %w", err)
		}
		return nil
	})
}

func (t *tracked) reset() (pages int, err error) {
	changed, same := 0, 0
	restore := func(s span, zero bool) error {
		if zero && t.isZero(s) { // the event has read here
			return t.kernel.writeProtect(t.memory[s.at:s.end], true)
		}
		c := t.restore(s)
		changed, same = changed+c, same+s.pages(t.kernel.page)-c
		return nil
	}
	if err := t.each(span{0, t.dense}, writtenDense(), restore); err != nil {
		return 0, err
	}
	if err := t.each(span{t.dense, len(t.memory)}, writtenSparse(), restore); err != nil {
		return 0, err
	}
	if t.fresh {
		t.fresh, t.vain, t.habitual = false, same, min(same, t.vain)
	}
	habitual := min(same, t.habitual)
	t.wasted += habitualPart*(same-habitual) + habitual
	if t.wasted > habitualPart*(protectCost+faultCost*(changed+same)) {
		return changed, t.protect()
	}
	return changed, nil
}

// restore makes the pages of s what they are in the image. It returns how many were not.
func (t *tracked) restore(s span) (changed int) {
	for at := s.at; at < s.end; at += t.kernel.page {
		memory, content := t.memory[at:at+t.kernel.page], t.page(at)
		switch {
		case content == nil && !isZero(memory):
			clear(memory)
			changed++
		case content != nil && !bytes.Equal(memory, content):
			copy(memory, content)
			changed++
		}
	}
	return changed
}

// page returns the content of the page at a place, nil when it is zero.
func (t *tracked) page(at int) []byte {
	if i := at / t.kernel.page; i < len(t.pages.list) {
		return t.pages.list[i]
	}
	return nil
}

// isZero reports whether all of s is zero in the image.
func (t *tracked) isZero(s span) bool {
	for at := s.at; at < s.end && at/t.kernel.page < len(t.pages.list); at += t.kernel.page {
		if t.page(at) != nil {
			return false
		}
	}
	return true
}

// end lifts the protection, so that clearing the memory costs no fault a page.
func (t *tracked) end() bool { return t.kernel.writeProtect(t.memory, false) == nil }

// each calls f with each part of s that a query finds, and whether the memory has no pages of its own
// there, because it was only read, and reads as zero. The first error ends it.
func (t *tracked) each(s span, q query, f func(s span, zero bool) error) error {
	for s.at < s.end {
		memory := t.memory[s.at:s.end]
		start := address(memory)
		n, walked, err := t.kernel.scan(memory, q, t.found)
		if err != nil {
			return err
		}
		for _, r := range t.found[:n] {
			part := span{s.at + int(r.start-start), s.at + int(r.end-start)}
			if err := f(part, r.categories&isZeroPage != 0); err != nil {
				return err
			}
		}
		s.at += walked
		if n == len(t.found) && n < maxFound {
			t.found = make([]region, 2*n)
		}
	}
	return nil
}
