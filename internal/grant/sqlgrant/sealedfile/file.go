// Package sealedfile keeps the pages of a database in a file in which nothing is in clear.
//
// The file is a log. Each commit appends one batch: a sealed head, which says which pages follow, and the pages, each sealed for its place
// in that batch. What a page holds now is in the newest batch that has it. When most of the file is outdated, the pages in use are
// written to a new file, which then takes its place.
//
// Invariants. A commit is on disk, whole, when Commit returns, or is not there at all: a batch that a crash cut short is dropped when the
// file is opened, and one that is damaged with whole ones after it is an error. No page that was altered, moved or taken from another
// file is ever returned. What cannot be told from a crash is the removal of the last batches of a file that was not closed: who keeps the
// Root of a file elsewhere, and opens it with OpenAfter, finds that batches are missing which that Root counted, and that the file is an older copy.
//
// A File is used by one goroutine at a time. It knows nothing of SQL. Callers: sqlgrant.
package sealedfile

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// PageSize is the size of a page in bytes.
const PageSize = 4096

const (
	// maxPages bounds the pages of a file: 16 TiB.
	maxPages = 1 << 32
	// maxHead bounds a sealed head in bytes: that of a batch with maxBatch pages.
	maxHead = 1 << 20
	// maxBatch bounds the pages of a batch when pages move to a new file. A commit may have more: it is several batches, of which
	// the last says that it is.
	maxBatch = 4096
	// maxCut bounds what a crash can leave of a batch, in bytes.
	maxCut = prefixSize + maxHead + maxBatch*(PageSize+256)
	// MinGarbage is how much outdated content is not worth the writing of a new file, in bytes.
	MinGarbage = 4 << 20
)

// marker begins each batch. It only helps to tell a cut from damage: what follows is authenticated.
var marker = []byte("slpgb1\x00\n")

// Errors of a file.
var (
	// ErrDamaged says that the content is not what was written.
	ErrDamaged = errors.New("the file is damaged")
	// ErrBroken says that a write failed such that only opening the file again tells what it holds.
	ErrBroken = errors.New("an earlier write failed")
	// ErrRolledBack says that the file is whole, and older than it was known to be, or not there any more.
	ErrRolledBack = errors.New("the file is an older one")
)

// Root says which commit a file has come to, and what all its batches were until then. The number only grows, also when pages move to a new
// file; the zero Root is that of no file.
type Root struct {
	Seq   uint64
	Chain [sha256.Size]byte
}

// outrun is how much higher the next number is after Outrun: more than an older file can have got to.
const outrun = 1 << 32

// Sealer seals and opens what is stored; *keyring.Sealer is one.
type Sealer interface {
	Seal(dst, plaintext, aad []byte) ([]byte, error)
	Open(dst, sealed, aad []byte) ([]byte, error)
}

// File is an open file.
type File struct {
	path   string
	name   string // what its content is bound to
	sealer Sealer
	f      *os.File

	pages map[uint32]position // where each page is
	size  uint32              // of the content, in pages
	seq   uint64              // of the last batch
	chain [sha256.Size]byte   // over the heads of all batches
	end   int64               // of the last batch
	clean bool                // that batch says that the file was closed
	err   error               // why the file is broken
	root  Root                // of what is known to be on the disk
	jump  uint64              // the number of the next batch, when it is not the next number

	damage error // of the page that was last found damaged

	pending map[uint32][]byte // pages that are not committed
	newSize uint32            // with what is not committed
	cut     uint32            // pages from here on were cut off, not committed either
}

// position is where a sealed page is, and what it is sealed for.
type position struct {
	offset int64
	batch  batchID
	length int32
}

type batchID [16]byte

// head describes a batch.
type head struct {
	seq   uint64
	id    batchID
	chain [sha256.Size]byte // before it
	// last says that a commit ends with this batch, and closed that the file was closed after it.
	last, closed bool
	// begins says that the batch is the first of a new file that goes on with the numbers of another, and jumps that numbers before it are left out.
	begins, jumps bool
	size          uint32
	pages         []uint32
	length        int32 // of each sealed page
}

// Open opens or makes the file at path. Its content opens only under the same name.
func Open(path, name string, sealer Sealer) (*File, error) {
	return OpenAfter(path, name, sealer, Root{})
}

// OpenAfter is Open for a file that had come to a Root: one that has not, or is not there, is ErrRolledBack and is left as it is.
func OpenAfter(path, name string, sealer Sealer, known Root) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) && known != (Root{}) {
		return nil, fmt.Errorf("%w: it is not there", ErrRolledBack)
	}
	if errors.Is(err, fs.ErrNotExist) {
		f, err = create(path, name, sealer)
	}
	if err != nil {
		return nil, err
	}
	s := &File{path: path, name: name, sealer: sealer, f: f, pages: map[uint32]position{}, pending: map[uint32][]byte{}}
	if err := s.load(known); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.newSize, s.cut = s.size, s.size
	return s, nil
}

// create makes a file with one empty batch. So a file always begins with a batch that opens, unless its key or its name is not the
// one that it was made with: then nothing of it is taken for the rest of a crash.
func create(path, name string, sealer Sealer) (*os.File, error) {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	s := &File{path: path, name: name, sealer: sealer, f: f}
	err = s.append(f, 0, nil, true, nil)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// load reads the heads of all batches, and drops what a crash cut short.
func (s *File) load(known Root) error {
	stat, err := s.f.Stat()
	if err != nil {
		return err
	}
	var commit []batch // the batches of a commit that is not complete yet
	at := int64(0)
	for at < stat.Size() {
		b, err := s.readBatch(at, stat.Size())
		if err == nil && at == 0 && b.head.begins && b.head.seq > 0 {
			s.seq, s.chain = b.head.seq-1, b.head.chain
		}
		inOrder := b.head.seq == s.seq+1 || b.head.jumps && b.head.seq > s.seq
		if err == nil && (!inOrder || b.head.chain != s.chain || at > 0 && b.head.begins) {
			err = fmt.Errorf("%w: batch %d is out of order", ErrDamaged, b.head.seq)
		}
		// The last batch is verified as a whole: pages of it may be missing although it has its length.
		if err == nil && b.end == stat.Size() && !b.head.closed {
			err = s.verify(b)
		}
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				return err
			}
			if next := s.follows(at+1, stat.Size()); next >= 0 {
				return fmt.Errorf("%w at byte %d, with a whole batch at byte %d", err, at, next)
			}
			if at == 0 || stat.Size()-at > maxCut {
				return fmt.Errorf("%w at byte %d: not what a crash leaves, or another key", err, at)
			}
			break
		}
		s.seq, s.chain, s.clean = b.head.seq, b.chain, b.head.closed
		if s.seq == known.Seq && s.chain != known.Chain {
			return fmt.Errorf("%w: commit %d is another than it was", ErrRolledBack, s.seq)
		}
		commit = append(commit, b)
		at = b.end
		if b.head.last {
			s.apply(commit...)
			commit = nil
		}
	}
	if len(commit) > 0 { // begun and not completed
		s.seq, s.chain, s.clean = commit[0].head.seq-1, commit[0].head.chain, false
	}
	if s.seq < known.Seq {
		return fmt.Errorf("%w: it ends with commit %d, and had come to %d", ErrRolledBack, s.seq, known.Seq)
	}
	if s.end < stat.Size() {
		if err := s.f.Truncate(s.end); err != nil {
			return err
		}
	}
	if !s.clean {
		// What a process that was killed had written is read, and may not be on the disk yet: nobody is told of a Root that a power cut could take back.
		if err := errors.Join(s.f.Sync(), syncDir(filepath.Dir(s.path))); err != nil {
			return err
		}
	}
	s.root = Root{s.seq, s.chain}
	return nil
}

// Root returns what the file has come to, as far as it is on the disk for good. It may be asked for after Close, too.
func (s *File) Root() Root { return s.root }

// Outrun has the file go on with numbers that are higher than any that a Root known before counted: what was newer than it can never take its
// place again. It is for a file that is older on purpose.
func (s *File) Outrun(known Root) error {
	if s.err != nil {
		return s.err
	}
	s.jump = max(s.seq, known.Seq) + outrun
	return s.append(s.f, s.size, nil, false, nil)
}

// batch is a batch in the file.
type batch struct {
	head  head
	first int64 // offset of its first page
	end   int64
	chain [sha256.Size]byte // with its head
}

// prefixSize is that of the marker and the length of the head.
const prefixSize = 8 + 4

// readBatch reads the head of the batch at an offset. That it is not whole is ErrDamaged.
func (s *File) readBatch(at, size int64) (batch, error) {
	var prefix [prefixSize]byte
	if _, err := s.f.ReadAt(prefix[:], at); err != nil {
		return batch{}, cut(err)
	}
	length := int64(binary.BigEndian.Uint32(prefix[8:]))
	if !bytes.Equal(prefix[:8], marker) || length > maxHead || at+prefixSize+length > size {
		return batch{}, fmt.Errorf("%w: no batch", ErrDamaged)
	}
	sealed := make([]byte, length)
	if _, err := s.f.ReadAt(sealed, at+prefixSize); err != nil {
		return batch{}, cut(err)
	}
	plain, err := s.sealer.Open(nil, sealed, s.headData())
	if err != nil {
		return batch{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	h, err := parseHead(plain)
	if err != nil {
		return batch{}, err
	}
	b := batch{head: h, first: at + prefixSize + length, chain: chained(h.chain, sealed)}
	b.end = b.first + int64(len(h.pages))*int64(h.length)
	if b.end > size {
		return batch{}, fmt.Errorf("%w: a batch is cut short", ErrDamaged)
	}
	return b, nil
}

// cut makes the end of the file, where more should be, damage.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: a batch is cut short", ErrDamaged)
	}
	return err
}

func chained(before [sha256.Size]byte, sealed []byte) [sha256.Size]byte {
	return sha256.Sum256(append(before[:], sealed...))
}

// verify opens every page of a batch.
func (s *File) verify(b batch) error {
	for i, page := range b.head.pages {
		p := position{offset: b.first + int64(i)*int64(b.head.length), batch: b.head.id, length: b.head.length}
		if _, err := s.open(page, p); err != nil {
			return err
		}
	}
	return nil
}

// follows returns where a whole batch begins at or after an offset, or -1.
func (s *File) follows(at, size int64) int64 {
	const window = 1 << 20
	buffer := make([]byte, window)
	for at < size {
		n, err := s.f.ReadAt(buffer[:min(window, size-at)], at)
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			return -1
		}
		for from := 0; ; {
			i := bytes.Index(buffer[from:n], marker)
			if i < 0 {
				break
			}
			if _, err := s.readBatch(at+int64(from+i), size); err == nil {
				return at + int64(from+i)
			}
			from += i + 1
		}
		if n <= len(marker) {
			return -1
		}
		at += int64(n - len(marker) + 1)
	}
	return -1
}

// apply makes batches the state of the file.
func (s *File) apply(batches ...batch) {
	for _, b := range batches {
		for i, page := range b.head.pages {
			s.pages[page] = position{offset: b.first + int64(i)*int64(b.head.length), batch: b.head.id, length: b.head.length}
		}
		s.resize(b.head.size)
		s.end = b.end
	}
}

func (s *File) resize(size uint32) {
	if size < s.size {
		for page := range s.pages {
			if page >= size {
				delete(s.pages, page)
			}
		}
	}
	s.size = size
}

// Pages returns the size of the content in pages, with what is not committed.
func (s *File) Pages() int64 { return int64(s.newSize) }

// Committed returns the size of the content in pages as it was committed last.
func (s *File) Committed() int64 { return int64(s.size) }

// Pending reports whether pages were written that are not committed.
func (s *File) Pending() bool { return len(s.pending) > 0 }

// Measure returns the size of the content of a file that is not open, in pages, as far as it is whole. It changes nothing.
func Measure(path, name string, sealer Sealer) (pages int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	stat, err := f.Stat()
	if err != nil {
		return 0, err
	}
	s := &File{name: name, sealer: sealer, f: f}
	for at := int64(0); at < stat.Size(); {
		b, err := s.readBatch(at, stat.Size())
		if err != nil && at > 0 && errors.Is(err, ErrDamaged) {
			break // what a crash cut short; that it is something else is found when the file is opened
		}
		if err != nil {
			return 0, err
		}
		if at = b.end; b.head.last {
			pages = int64(b.head.size)
		}
	}
	return pages, nil
}

// Read returns the content of a page, PageSize bytes that the caller does not change. One that was never written is zeros.
func (s *File) Read(page int64) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if page < 0 || page >= int64(s.newSize) {
		return nil, io.EOF
	}
	if p, ok := s.pending[uint32(page)]; ok {
		return p, nil
	}
	at, ok := s.pages[uint32(page)]
	if !ok || uint32(page) >= s.cut {
		return make([]byte, PageSize), nil
	}
	return s.open(uint32(page), at)
}

func (s *File) open(page uint32, at position) ([]byte, error) {
	sealed := make([]byte, at.length)
	if _, err := s.f.ReadAt(sealed, at.offset); err != nil {
		return nil, cut(err)
	}
	plain, err := s.sealer.Open(make([]byte, 0, PageSize), sealed, s.pageData(at.batch, page))
	if err != nil || len(plain) != PageSize {
		s.damage = fmt.Errorf("%w: page %d at byte %d", ErrDamaged, page, at.offset)
		return nil, s.damage
	}
	return plain, nil
}

// Damage returns the error of a page that did not open, or nil when all that were read did.
func (s *File) Damage() error { return s.damage }

// Write puts PageSize bytes in place of a page, until Commit in memory only.
func (s *File) Write(page int64, content []byte) error {
	if s.err != nil {
		return s.err
	}
	if page < 0 || page >= maxPages-1 || len(content) != PageSize {
		return fmt.Errorf("write %d bytes at page %d", len(content), page)
	}
	s.pending[uint32(page)] = bytes.Clone(content)
	s.newSize = max(s.newSize, uint32(page)+1)
	return nil
}

// Truncate changes the size of the content, until Commit in memory only.
func (s *File) Truncate(pages int64) error {
	if pages < 0 || pages >= maxPages {
		return fmt.Errorf("truncate to %d pages", pages)
	}
	s.newSize = uint32(pages)
	s.cut = min(s.cut, s.newSize)
	maps.DeleteFunc(s.pending, func(page uint32, _ []byte) bool { return page >= s.newSize })
	return nil
}

// Commit makes what was written durable, all of it or nothing. After an error nothing of it is, and it is still in memory.
func (s *File) Commit() error {
	if s.err != nil || len(s.pending) == 0 && s.newSize == s.size {
		return s.err
	}
	// A page that was cut off and came back is zeros, and not what it was.
	for page := s.cut; page < s.newSize; page++ {
		_, had := s.pages[page]
		if _, written := s.pending[page]; had && !written {
			s.pending[page] = make([]byte, PageSize)
		}
	}
	if err := s.append(s.f, s.newSize, slices.Sorted(maps.Keys(s.pending)), false, func(page uint32) ([]byte, error) { return s.pending[page], nil }); err != nil {
		return err
	}
	clear(s.pending)
	s.cut = s.size
	if garbage := s.end - int64(len(s.pages))*PageSize; garbage > MinGarbage && garbage > s.end/2 {
		// The commit is durable: a failure to make room is no failure of it, and is tried again with the next.
		_ = s.compact()
	}
	return nil
}

// append writes a commit of pages to f after the last batch, syncs it, and makes it the state of the file.
func (s *File) append(f *os.File, size uint32, pages []uint32, closed bool, content func(uint32) ([]byte, error)) error {
	seq, chain, at := s.seq, s.chain, s.end
	var batches []batch
	for first := true; first || len(pages) > 0; first = false {
		n := min(len(pages), maxBatch)
		h := head{seq: seq + 1, chain: chain, last: n == len(pages), closed: closed, begins: at == 0 && seq > 0, size: size, pages: pages[:n]}
		if first && s.jump > seq {
			h.seq, h.jumps = s.jump, true
		}
		_, _ = rand.Read(h.id[:]) // documented to never fail
		b, err := s.write(f, at, h, content)
		if err != nil {
			return s.undo(f, err)
		}
		batches = append(batches, b)
		// Each batch is synced before the next is written: so only the last one can be cut short, and load can tell that from damage.
		if err := f.Sync(); err != nil {
			s.err = fmt.Errorf("%w: %w", ErrBroken, err) // what the disk holds after a failed sync is not known
			return s.err
		}
		seq, chain, at, pages = h.seq, b.chain, b.end, pages[n:]
	}
	s.seq, s.chain, s.clean, s.jump = seq, chain, closed, 0
	s.root = Root{seq, chain}
	s.apply(batches...)
	return nil
}

// undo removes what a failed write left.
func (s *File) undo(f *os.File, err error) error {
	if e := f.Truncate(s.end); e != nil {
		s.err = fmt.Errorf("%w: %w", ErrBroken, errors.Join(err, e))
	}
	return err
}

// write writes one batch at an offset.
func (s *File) write(f *os.File, at int64, h head, content func(uint32) ([]byte, error)) (batch, error) {
	var body []byte
	for i, page := range h.pages {
		plain, err := content(page)
		if err != nil {
			return batch{}, err
		}
		before := len(body)
		if body, err = s.sealer.Seal(body, plain, s.pageData(h.id, page)); err != nil {
			return batch{}, err
		}
		if i == 0 {
			h.length = int32(len(body))
			body = slices.Grow(body, len(body)*(len(h.pages)-1))
		} else if len(body)-before != int(h.length) {
			return batch{}, errors.New("sealed pages differ in length")
		}
	}
	sealed, err := s.sealer.Seal(nil, h.append(nil), s.headData())
	if err != nil {
		return batch{}, err
	}
	out := binary.BigEndian.AppendUint32(bytes.Clone(marker), uint32(len(sealed)))
	out = append(append(out, sealed...), body...)
	if _, err := f.WriteAt(out, at); err != nil {
		return batch{}, err
	}
	first := at + prefixSize + int64(len(sealed))
	return batch{head: h, first: first, end: at + int64(len(out)), chain: chained(h.chain, sealed)}, nil
}

// compact writes the pages in use to a new file, which takes the place of this one.
func (s *File) compact() error {
	temp := s.path + ".new"
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	to := &File{path: s.path, name: s.name, sealer: s.sealer, f: f, pages: map[uint32]position{}, pending: map[uint32][]byte{}, newSize: s.size, cut: s.size}
	to.seq, to.chain = s.seq, s.chain // the numbers go on
	pages := make([]uint32, 0, len(s.pages))
	for page := range s.pages {
		pages = append(pages, page)
	}
	slices.Sort(pages)
	err = to.append(f, s.size, pages, false, func(page uint32) ([]byte, error) { return s.open(page, s.pages[page]) })
	if err == nil {
		err = os.Rename(temp, s.path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(temp))
	}
	old, moved := s.f, to.root
	to.root = s.root
	*s = *to
	// Until the folder is synced a crash may bring the old file back, which holds the same; later commits must not be lost with it.
	if err := syncDir(filepath.Dir(s.path)); err != nil {
		s.err = fmt.Errorf("%w: %w", ErrBroken, err)
	} else {
		s.root = moved
	}
	return errors.Join(s.err, old.Close())
}

// Close drops what is not committed and marks the file as closed: after that, its end cannot be cut off unnoticed.
func (s *File) Close() error {
	var err error
	if s.err == nil && s.seq > 0 && !s.clean {
		err = s.append(s.f, s.size, nil, true, nil)
	}
	s.err = fs.ErrClosed
	return errors.Join(err, s.f.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (s *File) headData() []byte { return append([]byte("sealed file head\x00"), s.name...) }

// pageData binds a page to its batch and its number. The name is bound by the head, whose id nothing else has.
func (s *File) pageData(id batchID, page uint32) []byte {
	return binary.BigEndian.AppendUint32(append([]byte("sealed file page\x00"), id[:]...), page)
}

const headSize = 8 + 16 + sha256.Size + 1 + 4 + 4 + 4

func (h head) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, h.seq)
	dst = append(dst, h.id[:]...)
	dst = append(dst, h.chain[:]...)
	flags := byte(0)
	if h.last {
		flags |= 1
	}
	if h.closed {
		flags |= 2
	}
	if h.begins {
		flags |= 4
	}
	if h.jumps {
		flags |= 8
	}
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint32(dst, h.size)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.length))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(h.pages)))
	for _, page := range h.pages {
		dst = binary.BigEndian.AppendUint32(dst, page)
	}
	return dst
}

// parseHead reads what append wrote; it was authenticated, so this only keeps a fault of ours from doing harm.
func parseHead(b []byte) (head, error) {
	malformed := fmt.Errorf("%w: malformed head", ErrDamaged)
	if len(b) < headSize {
		return head{}, malformed
	}
	var h head
	h.seq = binary.BigEndian.Uint64(b)
	copy(h.id[:], b[8:])
	copy(h.chain[:], b[24:])
	b = b[24+sha256.Size:]
	h.last, h.closed, h.begins, h.jumps = b[0]&1 != 0, b[0]&2 != 0, b[0]&4 != 0, b[0]&8 != 0
	h.size, h.length = binary.BigEndian.Uint32(b[1:]), int32(binary.BigEndian.Uint32(b[5:]))
	count := binary.BigEndian.Uint32(b[9:])
	b = b[13:]
	if count > maxBatch || len(b) != int(count)*4 || count > 0 && h.length < PageSize || h.length < 0 {
		return head{}, malformed
	}
	for ; len(b) > 0; b = b[4:] {
		h.pages = append(h.pages, binary.BigEndian.Uint32(b))
	}
	return h, nil
}
