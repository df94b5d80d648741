package eventlog

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"sallyport/internal/event"
	"sallyport/internal/ident"
)

// entry is what the index keeps of one event. The three checksums only narrow a search, what they
// select is read and compared; key decides by itself and is keyed.
type entry struct {
	key             key
	digest          uint64
	position        ident.Position
	millis          int64 // acceptance, Unix time
	id, source, typ uint32
}

const entrySize = 16 + 8 + 8 + 8 + 3*4

// item is one record on its way through an append.
type item struct {
	entry
	first  ref // the record of the same batch that this one repeats
	result Appended
}

// castagnoli is the polynomial that processors compute in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(s string) uint32 { return crc32.Checksum([]byte(s), castagnoli) }

// keyOf returns the keyed digest of an event's identity.
func (l *Log) keyOf(source, id string) key {
	d := l.sealer.MACStrings(source, id)
	return key{hi: binary.BigEndian.Uint64(d[:8]), lo: binary.BigEndian.Uint64(d[8:])}
}

// describe returns the entry of r, but for its position.
func (l *Log) describe(r *event.Record) entry {
	return entry{
		key:    l.keyOf(r.Source, r.ID),
		digest: contentDigest(r),
		millis: r.AcceptedAt.UnixMilli(),
		id:     checksum(r.ID), source: checksum(r.Source), typ: checksum(string(r.Type)),
	}
}

// contentDigest is what two events of one identity are compared by. It need not resist a forger: who makes two
// contents of one identity collide only has the second of their own events taken for a repetition.
// Extensions and time are left out, because a producer that sends again may stamp them anew.
//
// Of an event that a function emitted, the first emission stands: an attempt repeated after a crash
// may emit other content under the same id, and must find it stored.
func contentDigest(r *event.Record) uint64 {
	if r.Cause != 0 {
		return uint64(r.Cause)
	}
	sum := crc32.Update(0, castagnoli, r.Data)
	for _, s := range [...]string{string(r.Type), r.Subject, r.DataContentType} {
		sum = crc32.Update(sum, castagnoli, []byte(s))
		sum = crc32.Update(sum, castagnoli, []byte{0})
	}
	return uint64(sum)<<32 | uint64(uint32(len(r.Data)))
}

func appendEntry(dst []byte, e *entry) []byte {
	be := binary.BigEndian
	dst = be.AppendUint64(dst, e.key.hi)
	dst = be.AppendUint64(dst, e.key.lo)
	dst = be.AppendUint64(dst, e.digest)
	dst = be.AppendUint64(dst, uint64(e.position))
	dst = be.AppendUint64(dst, uint64(e.millis))
	dst = be.AppendUint32(dst, e.id)
	dst = be.AppendUint32(dst, e.source)
	return be.AppendUint32(dst, e.typ)
}

func parseEntries(text []byte) ([]entry, error) {
	if len(text)%entrySize != 0 {
		return nil, fmt.Errorf("index file has %d bytes, not a multiple of %d", len(text), entrySize)
	}
	be := binary.BigEndian
	out := make([]entry, len(text)/entrySize)
	for i := range out {
		b := text[i*entrySize:]
		out[i] = entry{
			key:      key{hi: be.Uint64(b), lo: be.Uint64(b[8:])},
			digest:   be.Uint64(b[16:]),
			position: ident.Position(be.Uint64(b[24:])),
			millis:   int64(be.Uint64(b[32:])),
			id:       be.Uint32(b[40:]), source: be.Uint32(b[44:]), typ: be.Uint32(b[48:]),
		}
	}
	return out, nil
}

// segmentEntries is how many events one index file describes: 1.7 MB, and what a start after a
// crash reads from the log again at most.
const segmentEntries = 1 << 15

// segment names an index file by the batches it covers, both included.
type segment struct{ first, last uint64 }

func (s segment) file() string { return fmt.Sprintf("%016x-%016x.idx", s.first, s.last) }

func parseSegment(name string) (segment, bool) {
	var s segment
	base, ok := strings.CutSuffix(name, ".idx")
	if !ok {
		return s, false
	}
	if n, err := fmt.Sscanf(base, "%016x-%016x", &s.first, &s.last); n != 2 || err != nil || s.first > s.last || s.file() != name {
		return s, false
	}
	return s, true
}

// index finds events by identity, type and time. Full segments are sealed files; the rest is in
// memory until the next one is full.
type index struct {
	dir    string
	aad    []byte
	cipher cipher
	log    *slog.Logger
	full   chan struct{} // a segment is ready to be written
	// rescan reads the entries of a range of batches from the log.
	rescan func(ctx context.Context, s segment) ([]entry, error)

	mu   sync.Mutex
	segs []segment // oldest first, contiguous
	open []entry   // after the last segment; entries are never changed once appended
}

func newIndex(dir, ns string, c cipher, log *slog.Logger) *index {
	return &index{dir: dir, aad: []byte("sallyport/index/1/" + ns), cipher: c, log: log, full: make(chan struct{}, 1)}
}

// add appends the entries of a batch; they come in the order of their positions.
func (x *index) add(reqs []*request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range reqs {
		for i := range r.items {
			if !r.frames[i].dropped {
				x.open = append(x.open, r.items[i].entry)
			}
		}
	}
}

// offer asks the background to write a segment once there are enough entries for one.
func (x *index) offer() {
	x.mu.Lock()
	ready := len(x.open) >= segmentEntries
	x.mu.Unlock()
	if ready {
		select {
		case x.full <- struct{}{}:
		default:
		}
	}
}

// flush writes what is in memory as a segment. upTo is the last batch that is complete.
func (x *index) flush(upTo uint64) error {
	x.mu.Lock()
	n, _ := slices.BinarySearchFunc(x.open, upTo+1, func(e entry, b uint64) int { return cmp.Compare(e.position.Batch(), b) })
	entries := x.open[:n:n]
	x.mu.Unlock()
	if n == 0 {
		return nil
	}
	s := segment{entries[0].position.Batch(), entries[n-1].position.Batch()}
	if err := x.save(s, entries); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.segs = append(x.segs, s)
	x.open = slices.Clone(x.open[n:]) // lets go of the written ones
	return nil
}

// save writes one segment. It need not be synced: what a power cut leaves of it does not open and
// is made again.
func (x *index) save(s segment, entries []entry) error {
	text := make([]byte, 0, len(entries)*entrySize)
	for i := range entries {
		text = appendEntry(text, &entries[i])
	}
	sealed, err := x.cipher.Seal(nil, text, x.bind(s))
	if err != nil {
		return fmt.Errorf("seal index: %w", err)
	}
	path := filepath.Join(x.dir, s.file())
	if err := os.WriteFile(path+".tmp", sealed, 0o600); err != nil {
		return fmt.Errorf("write index: %w", errors.Join(err, os.Remove(path+".tmp")))
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

func (x *index) bind(s segment) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(slices.Clone(x.aad), s.first), s.last)
}

// load reads one segment, and makes it anew from the log when it is missing or does not open.
func (x *index) load(ctx context.Context, s segment) ([]entry, error) {
	entries, err := x.read(s)
	if err == nil {
		return entries, nil
	}
	x.log.Warn("index file is made anew from the event log", "file", s.file(), "error", err)
	if entries, err = x.rescan(ctx, s); err != nil {
		return nil, err
	}
	if err := x.save(s, entries); err != nil {
		x.log.Warn("write event index", "error", err)
	}
	return entries, nil
}

func (x *index) read(s segment) ([]entry, error) {
	sealed, err := os.ReadFile(filepath.Join(x.dir, s.file()))
	if err != nil {
		return nil, err
	}
	text, err := x.cipher.Open(nil, sealed, x.bind(s))
	if err != nil {
		return nil, err
	}
	return parseEntries(text)
}

// newestFirst calls visit for each entry, newest first, until it returns false.
func (x *index) newestFirst(ctx context.Context, visit func(entry) (more bool, err error)) error {
	x.mu.Lock()
	open, segs := x.open, x.segs
	x.mu.Unlock()
	for i := len(segs); ; i-- {
		for j := len(open) - 1; j >= 0; j-- {
			if more, err := visit(open[j]); err != nil || !more {
				return err
			}
		}
		if i == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if open, err = x.load(ctx, segs[i-1]); err != nil {
			return err
		}
	}
}

// trim forgets the segments that lie wholly before a batch.
func (x *index) trim(before uint64) error {
	x.mu.Lock()
	n := 0
	for n < len(x.segs) && x.segs[n].last < before {
		n++
	}
	gone := x.segs[:n]
	x.segs = slices.Clone(x.segs[n:])
	x.mu.Unlock()
	var errs []error
	for _, s := range gone {
		errs = append(errs, x.remove(s))
	}
	return errors.Join(errs...)
}

func (x *index) remove(s segment) error {
	if err := os.Remove(filepath.Join(x.dir, s.file())); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
