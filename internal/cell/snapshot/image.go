package snapshot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"
	"weak"
)

const (
	// unit is what the differences to a base are kept in, in bytes. It is a line of the processor's
	// cache, because QuickJS scatters what it writes: of a small script, 9 KB differ in lines, and
	// 120 KB in pages.
	unit = 64
	// pageBytes is the unit of an image without a base, in bytes: only whole pages that are zero are
	// left out, so that a page of the hardware is one piece of the image. It is the hardware's page
	// on most machines, and nothing but speed depends on that.
	pageBytes = 4 << 10
	// wasmPage is what the size of a memory is a multiple of, in bytes.
	wasmPage = 64 << 10
	// maxImageBytes is the size of the largest memory that there can be.
	maxImageBytes = 4 << 30
)

// ErrSizeInvalid is returned for a memory that WebAssembly cannot have.
var ErrSizeInvalid = errors.New("the size of a memory is a multiple of 64 KiB and at most 4 GiB")

// ErrBase is returned when an image is to be the base of another one and has a base itself.
var ErrBase = errors.New("an image with a base cannot be a base")

// Image is the content of a memory at one moment, which never changes. It keeps only what is not
// zero, or, when it has a base, what differs from it. It is safe for concurrent use.
type Image struct {
	size int    // of the memory, in bytes
	base *Image // nil, or an image without a base
	runs []run  // by place; runs neither overlap nor touch
	data []byte // the bytes of all runs

	summing sync.Once
	sum     [sha256.Size]byte // once summed

	paging sync.Mutex
	paged  weak.Pointer[pageList]
}

// pageList is the content of each page of an image up to the last that is not zero: nil for one that is. It never
// changes.
type pageList struct {
	size int // of a page, in bytes
	list [][]byte
}

// run is a range of units whose bytes are kept. It ends where its bytes do: they end where those of
// the next run begin.
type run struct {
	at   uint32 // in units, in the memory
	from uint32 // in units, in the data
}

// Take returns an image of memory as its difference to base, which may be nil. It keeps neither
// memory nor a copy of what is equal to base.
func Take(memory []byte, base *Image) (*Image, error) {
	if err := checkSize(int64(len(memory))); err != nil {
		return nil, fmt.Errorf("take image of %d bytes: %w", len(memory), err)
	}
	if base != nil && base.base != nil {
		return nil, fmt.Errorf("take image: %w", ErrBase)
	}
	im := &Image{size: len(memory), base: base}
	units := im.compare(memory)
	im.data = make([]byte, 0, units*unit)
	for i, r := range im.runs {
		start, end := int(r.at)*unit, int(r.at+im.length(i, units))*unit
		im.data = append(im.data, memory[start:end]...)
	}
	return im, nil
}

// compare makes the runs of an image of memory and returns how many units they have.
func (im *Image) compare(memory []byte) (units int) {
	end := -1 // of the last run
	page := make([]byte, pageBytes)
	for at := 0; at < len(memory); at += pageBytes {
		now, old := memory[at:at+pageBytes], page
		if im.base.read(old, at); bytes.Equal(old, now) {
			continue
		}
		step := unit
		if im.base == nil {
			step = pageBytes
		}
		for i := 0; i < pageBytes; i += step {
			if im.base != nil && bytes.Equal(old[i:i+step], now[i:i+step]) {
				continue
			}
			if at+i != end {
				im.runs = append(im.runs, run{uint32((at + i) / unit), uint32(units)})
			}
			end = at + i + step
			units += step / unit
		}
	}
	im.runs = slices.Clip(im.runs)
	return units
}

func checkSize(size int64) error {
	if size < 0 || size > maxImageBytes || size > math.MaxInt || size%wasmPage != 0 {
		return ErrSizeInvalid
	}
	return nil
}

// Size returns the size of the memory in bytes.
func (im *Image) Size() int64 { return int64(im.size) }

// Base returns the image that im is the difference to, or nil.
func (im *Image) Base() *Image { return im.base }

// String says how large im is, and nothing of what is in it.
func (im *Image) String() string {
	return fmt.Sprintf("image of %d bytes of memory, with %d of its own", im.size, len(im.data))
}

// Bytes returns how much memory the image takes, without its base.
func (im *Image) Bytes() int64 {
	const fixed, perRun = 256, 8 // the structure and what the allocator rounds up; the size of a run
	return int64(fixed + perRun*cap(im.runs) + cap(im.data))
}

// length returns how many units run i has, of an image with so many units.
func (im *Image) length(i, units int) uint32 {
	if i+1 < len(im.runs) {
		return im.runs[i+1].from - im.runs[i].from
	}
	return uint32(units) - im.runs[i].from
}

// segment returns the content of the memory from at on, up to some place that is at most end: the
// bytes as they are kept, or nil when they are zero. Without an image all is zero, and so it is
// behind the end of one. It is the only reader of an image.
func (im *Image) segment(at, end int) (content []byte, until int) {
	if im == nil || at >= im.size {
		return nil, end
	}
	end = min(end, im.size)
	next := sort.Search(len(im.runs), func(i int) bool { return int(im.runs[i].at)*unit > at })
	if next > 0 {
		r := im.runs[next-1]
		skip := at - int(r.at)*unit
		length := int(im.length(next-1, len(im.data)/unit)) * unit
		if skip < length {
			end = min(end, at+length-skip)
			from := int(r.from)*unit + skip
			return im.data[from : from+end-at], end
		}
	}
	if next < len(im.runs) {
		end = min(end, int(im.runs[next].at)*unit)
	}
	if im.base != nil {
		return im.base.segment(at, end)
	}
	return nil, end
}

// read makes memory, which begins at place at, what it is in the image.
func (im *Image) read(memory []byte, at int) {
	for len(memory) > 0 {
		content, until := im.segment(at, at+len(memory))
		n := until - at
		if content != nil {
			copy(memory[:n], content)
		} else {
			clear(memory[:n])
		}
		memory, at = memory[n:], until
	}
}

// equal reports whether memory is the content of the image.
func (im *Image) equal(memory []byte) bool {
	for at := 0; at < len(memory); {
		content, until := im.segment(at, len(memory))
		part := memory[at:until]
		if content == nil && !isZero(part) || content != nil && !bytes.Equal(part, content) {
			return false
		}
		at = until
	}
	return len(memory) == im.size
}

// extent returns how many bytes the image has that are kept, and where the last of them ends.
func (im *Image) extent() (held, end int) {
	for at := 0; at < im.size; {
		content, until := im.segment(at, im.size)
		if content != nil {
			held, end = held+len(content), until
		}
		at = until
	}
	return held, end
}

// pages returns the content of each page of this size. It is the same for all who have it at one time: to make it costs
// a good part of waking an instance, and it is longer than the image, so it is kept as long as somebody has it.
func (im *Image) pages(size int) *pageList {
	im.paging.Lock()
	defer im.paging.Unlock()
	if p := im.paged.Value(); p != nil && p.size == size {
		return p
	}
	p := &pageList{size, im.split(size)}
	im.paged = weak.Make(p)
	return p
}

// split returns the list of a pageList. What the image has in one piece is not copied.
func (im *Image) split(size int) [][]byte {
	_, end := im.extent()
	list := make([][]byte, (end+size-1)/size)
	for i := range list {
		at := i * size
		content, until := im.segment(at, at+size)
		if until < at+size {
			content = make([]byte, size)
			im.read(content, at)
		}
		list[i] = content
	}
	return list
}
