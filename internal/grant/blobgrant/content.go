package blobgrant

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"syscall"

	"sallyport/internal/keyring"
	"sallyport/internal/store"
)

// chunkSize is how much content is sealed at a time: what a read of one byte costs, and what an upload holds in memory.
const chunkSize = 64 << 10

// errDamaged says that content is not what was written.
var errDamaged = errors.New("the content is damaged")

// Sealer seals chunks; *keyring.Sealer is one. What it seals is keyring.Overhead bytes longer.
type Sealer interface {
	Seal(dst, plaintext, aad []byte) ([]byte, error)
	Open(dst, sealed, aad []byte) ([]byte, error)
}

// fileID is a random name, which no other content of this server has.
type fileID [16]byte

func (id fileID) String() string { return hex.EncodeToString(id[:]) }

// parseFileID reads the name of a file.
func parseFileID(s string) (id fileID, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != s {
		return id, false
	}
	return fileID(b), true
}

// place is what a chunk is sealed for, beside its number.
type place struct {
	bucket string // with its namespace
	id     fileID
}

// additional binds a chunk to its file, to its number in it, and to whether it is the last: chunks that were moved, repeated, left out
// or cut off do not open.
func (p place) additional(number int64, last bool) []byte {
	b := append(make([]byte, 0, 64+len(p.bucket)), "blob chunk\x00"...)
	b = append(append(b, p.bucket...), 0)
	b = append(b, p.id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(number))
	if last {
		return append(b, 1)
	}
	return append(b, 0)
}

// lastChunk returns the number of the last chunk; content without a byte has one chunk, which is empty.
func lastChunk(size int64) int64 { return max(size-1, 0) / chunkSize }

// sealedSize returns how long the file of content is.
func sealedSize(size int64) int64 { return size + (lastChunk(size)+1)*keyring.Overhead }

// writer seals content into a file. Nothing refers to it before finish has returned.
type writer struct {
	f      *os.File
	sealer Sealer
	at     place
	plain  []byte // not sealed yet: a chunk is, once it is known whether it is the last
	sealed []byte
	number int64
	sum    hash.Hash
	size   int64
	wrote  func(n int64) // is told what the content takes more on the disk, as soon as it was given
}

func newWriter(path string, sealer Sealer, at place, wrote func(n int64)) (*writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, full(err)
	}
	return &writer{f: f, sealer: sealer, at: at, sum: sha256.New(), wrote: wrote}, nil
}

// write adds content. After an error the file is of no use.
func (w *writer) write(p []byte) error {
	w.sum.Write(p) // never fails
	w.size += int64(len(p))
	for len(p) > 0 {
		if len(w.plain) == chunkSize {
			if err := w.seal(false); err != nil {
				return err
			}
		}
		n := min(chunkSize-len(w.plain), len(p))
		w.plain = append(w.plain, p[:n]...)
		w.wrote(int64(n))
		p = p[n:]
	}
	return nil
}

func (w *writer) seal(last bool) (err error) {
	if w.sealed, err = w.sealer.Seal(w.sealed[:0], w.plain, w.at.additional(w.number, last)); err != nil {
		return err
	}
	if len(w.sealed) != len(w.plain)+keyring.Overhead {
		return errors.New("BUG: a sealed chunk has another length than all others")
	}
	n, err := w.f.Write(w.sealed)
	w.wrote(int64(n - len(w.plain)))
	w.plain = w.plain[:0]
	w.number++
	return full(err)
}

// drop takes back what was given and is not in the file.
func (w *writer) drop() {
	w.wrote(-int64(len(w.plain)))
	w.plain = nil
}

// finish has the content on disk, and returns its digest.
func (w *writer) finish() (d digest, err error) {
	if err := w.seal(true); err != nil {
		return d, err
	}
	w.sum.Sum(d[:0])
	return d, full(errors.Join(w.f.Sync(), w.f.Close()))
}

// full makes of an error of the file system for which there is no more room the problem that it is.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return store.ErrStorageFull
	}
	return err
}

// readRange appends length bytes of content from offset on. They are within its size.
func readRange(dst []byte, path string, sealer Sealer, at place, size, offset, length int64) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if stat, err := f.Stat(); err != nil {
		return nil, err
	} else if stat.Size() != sealedSize(size) {
		return nil, fmt.Errorf("%w: the file has %d bytes in place of %d", errDamaged, stat.Size(), sealedSize(size))
	}
	last := lastChunk(size)
	var sealed, plain []byte
	for number := offset / chunkSize; length > 0 || size == 0; number++ {
		begin := number * chunkSize
		n := min(chunkSize, size-begin)
		sealed = grown(sealed, int(n)+keyring.Overhead)
		if _, err := f.ReadAt(sealed, number*(chunkSize+keyring.Overhead)); err != nil {
			return nil, fmt.Errorf("read chunk %d: %w", number, err)
		}
		if plain, err = sealer.Open(plain[:0], sealed, at.additional(number, number == last)); err != nil || int64(len(plain)) != n {
			return nil, fmt.Errorf("%w in chunk %d: %w", errDamaged, number, errors.Join(err))
		}
		if size == 0 {
			break
		}
		part := plain[offset-begin:]
		part = part[:min(int64(len(part)), length)]
		dst = append(dst, part...)
		offset, length = offset+int64(len(part)), length-int64(len(part))
	}
	return dst, nil
}

// grown returns b with a length, in memory of its own when it is too short.
func grown(b []byte, length int) []byte {
	if cap(b) < length {
		return make([]byte, length)
	}
	return b[:length]
}

// makeDir makes a folder within one that exists, durably.
func makeDir(parent, path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return full(err)
	}
	return syncDir(parent)
}

// syncDir has the names in a folder on disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return full(errors.Join(d.Sync(), d.Close()))
}
