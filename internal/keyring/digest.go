package keyring

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// DigestSize is the size of a Digest in bytes.
const DigestSize = 16

// Digest is a keyed digest: HMAC-SHA256 cut to 128 bits. Without the key it says nothing of what was
// digested, so it can be an index key where the value itself must not be in clear.
type Digest [DigestSize]byte

// Uint64 returns the first 64 bits, for an index in memory that can afford a false hit.
func (d Digest) Uint64() uint64 { return binary.BigEndian.Uint64(d[:]) }

// digestChunk is how many bytes are handed to the hash at once. Parts are copied to a buffer of this
// size, so that they do not escape to the heap; the copy is small beside the hashing.
const digestChunk = 1024

type digester struct {
	mac    hash.Hash
	buffer []byte
	sum    [sha256.Size]byte
}

func newDigester(key []byte) func() any {
	return func() any {
		return &digester{mac: hmac.New(sha256.New, key), buffer: make([]byte, 0, digestChunk)}
	}
}

// MAC returns the keyed digest of parts, each framed by its length: ("ab","c") and ("a","bc") differ.
// It stays the same when segment keys rotate. It allocates nothing.
func (s *Sealer) MAC(parts ...[]byte) Digest {
	g := s.digests.Get().(*digester)
	defer s.digests.Put(g)
	for _, part := range parts {
		addPart(g, part)
	}
	return g.finish()
}

// MACStrings is MAC for strings: the digest is the same as of the same bytes.
func (s *Sealer) MACStrings(parts ...string) Digest {
	g := s.digests.Get().(*digester)
	defer s.digests.Put(g)
	for _, part := range parts {
		addPart(g, part)
	}
	return g.finish()
}

func addPart[T string | []byte](g *digester, part T) {
	if len(g.buffer)+binary.MaxVarintLen64 > digestChunk {
		g.flush()
	}
	g.buffer = binary.AppendUvarint(g.buffer, uint64(len(part)))
	for len(part) > 0 {
		n := min(len(part), digestChunk-len(g.buffer))
		g.buffer = append(g.buffer, part[:n]...)
		part = part[n:]
		if len(g.buffer) == digestChunk {
			g.flush()
		}
	}
}

func (g *digester) flush() {
	_, _ = g.mac.Write(g.buffer) // documented to never fail
	g.buffer = g.buffer[:0]
}

// finish returns the digest of what was added and makes g ready for the next.
func (g *digester) finish() (d Digest) {
	g.flush()
	copy(d[:], g.mac.Sum(g.sum[:0]))
	g.mac.Reset()
	return d
}
