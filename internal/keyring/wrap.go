package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sallyport/internal/ident"
)

// keySize is the size of every key in bytes: AES-256.
const keySize = 32

// key is a secret key. It is never used itself, only what derive makes of it.
type key struct {
	redacted
	secret [keySize]byte
}

func newKey() (k key) {
	_, _ = rand.Read(k.secret[:]) // documented to never fail
	return k
}

// derive returns the key of one use of k.
func (k key) derive(use string) ([]byte, error) {
	return hkdf.Key(sha256.New, k.secret[:], nil, "sallyport v1 "+use, keySize)
}

// aead returns the cipher of one use of k. Its nonces are random and part of what it seals.
func (k key) aead(use string) (cipher.AEAD, error) {
	derived, err := k.derive(use)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	defer clear(derived)
	return newAEAD(derived)
}

// newAEAD returns the cipher of a derived key.
func newAEAD(derived []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// level is the place of a wrapped key in the hierarchy.
type level byte

const (
	levelNamespace level = 1
	levelSegment   level = 2
	levelValue     level = 3
)

// place is what a key is for.
type place struct {
	ns      ident.Namespace
	purpose string
}

// header is what a wrapped key says of itself in clear; it is authenticated.
type header struct {
	id      uint32
	created time.Time
	// records and bytes are how much the key may have sealed: never less than it has.
	records, bytes int64
}

// The form of a wrapped key; changing it needs a new version.
const (
	wrapVersion    = 1
	headerSize     = 1 + 1 + 4 + 8 + 8 + 8
	commitmentSize = 32
	nonceSize      = 12
	tagSize        = 16
	wrappedSize    = headerSize + commitmentSize + nonceSize + keySize + tagSize
)

var errWrapped = errors.New("wrapped key is malformed or belongs elsewhere")

// wrapper wraps and unwraps the keys of one level and place under their parent key.
type wrapper struct {
	aead  cipher.AEAD
	level level
	bound []byte // level and place, the unchanging part of the additional data
}

func newWrapper(parent key, l level, p place) (*wrapper, error) {
	use := "wrap namespace key"
	switch l {
	case levelSegment:
		use = "wrap segment key"
	case levelValue:
		use = "wrap value key"
	case levelNamespace:
	}
	aead, err := parent.aead(use)
	if err != nil {
		return nil, err
	}
	bound := []byte{byte(l)}
	bound = appendFramed(bound, string(p.ns))
	bound = appendFramed(bound, p.purpose)
	return &wrapper{aead: aead, level: l, bound: bound}, nil
}

func appendFramed(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// seal returns k wrapped, with h in front.
func (w *wrapper) seal(h header, k key) ([]byte, error) {
	record := make([]byte, 0, wrappedSize)
	record = append(record, wrapVersion, byte(w.level))
	record = binary.BigEndian.AppendUint32(record, h.id)
	record = binary.BigEndian.AppendUint64(record, uint64(h.created.Unix()))
	record = binary.BigEndian.AppendUint64(record, uint64(h.records))
	record = binary.BigEndian.AppendUint64(record, uint64(h.bytes))
	commitment, err := k.derive("commitment")
	if err != nil {
		return nil, fmt.Errorf("commit to a key: %w", err)
	}
	record = append(record, commitment...)
	return w.aead.Seal(record, nil, k.secret[:], w.additional(record)), nil
}

// open returns what seal was given.
func (w *wrapper) open(record []byte) (header, key, error) {
	if len(record) != wrappedSize || record[0] != wrapVersion || record[1] != byte(w.level) {
		return header{}, key{}, errWrapped
	}
	h := header{
		id:      binary.BigEndian.Uint32(record[2:]),
		created: time.Unix(int64(binary.BigEndian.Uint64(record[6:])), 0),
		records: int64(binary.BigEndian.Uint64(record[14:])),
		bytes:   int64(binary.BigEndian.Uint64(record[22:])),
	}
	clearPart := record[:headerSize+commitmentSize]
	secret, err := w.aead.Open(nil, nil, record[len(clearPart):], w.additional(clearPart))
	if err != nil || len(secret) != keySize {
		return header{}, key{}, errWrapped
	}
	k := key{secret: [keySize]byte(secret)}
	clear(secret)
	commitment, err := k.derive("commitment")
	if err != nil {
		return header{}, key{}, fmt.Errorf("check the commitment of a key: %w", err)
	}
	if subtle.ConstantTimeCompare(commitment, record[headerSize:headerSize+commitmentSize]) != 1 {
		return header{}, key{}, errWrapped
	}
	return h, k, nil
}

// additional is what a wrapped key is bound to: its place, and all it says in clear.
func (w *wrapper) additional(clearPart []byte) []byte {
	return append(append([]byte("sallyport wrapped key"), w.bound...), clearPart...)
}

// The names under which wrapped keys are kept. The server's own namespace is "_", which no namespace
// can be called. A segment key is found by its number, and the newest one also as "current".

const rootName = "root"

func spaceName(ns ident.Namespace) string {
	if ns == "" {
		return "_"
	}
	return string(ns)
}

func namespaceName(ns ident.Namespace) string { return "namespace/" + spaceName(ns) }

func segmentPrefix(ns ident.Namespace) string { return "segment/" + spaceName(ns) + "/" }

func currentName(p place) string { return segmentPrefix(p.ns) + p.purpose + "/current" }

func segmentName(p place, id uint32) string {
	return fmt.Sprintf("%s%s/%08x", segmentPrefix(p.ns), p.purpose, id)
}

// now is the time in the precision that a wrapped key keeps.
func now() time.Time { return time.Now().Truncate(time.Second) }
