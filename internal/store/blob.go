package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sallyport/internal/problem"
)

const (
	blobStream = "blobs"
	blobPrefix = "blob."
	// blobChunk is how many bytes of a blob are in one message.
	blobChunk = 1 << 20
	// digestScheme begins every digest.
	digestScheme = "sha256:"
)

// Blobs is a space of sealed, content-addressed blobs. It is safe for concurrent use.
//
// A blob is a head, which holds its size, and chunks, each sealed for its place: space, digest, size
// and number. The head is written last and removed first, so what has a head is whole.
type Blobs struct {
	engine *Engine
	sealer Sealer
	name   string
}

// Blobs opens a blob space. The stream that all spaces share is made when it does not exist.
func (e *Engine) Blobs(ctx context.Context, name string, sealer Sealer) (*Blobs, error) {
	if name == "" || len(name) > MaxName {
		return nil, fmt.Errorf("blob space name is %d bytes long, want 1 to %d", len(name), MaxName)
	}
	err := e.openStream(ctx, jetstream.StreamConfig{Name: blobStream, Subjects: []string{blobPrefix + ">"}, MaxMsgsPerSubject: 1})
	return &Blobs{engine: e, sealer: sealer, name: name}, err
}

// Put stores content, of at most MaxBlob bytes, and returns its digest, "sha256:" and 64 hex digits,
// when it is on disk. Content that is stored already is not stored again.
func (b *Blobs) Put(ctx context.Context, content []byte) (digest string, err error) {
	if len(content) > MaxBlob {
		return "", fmt.Errorf("put a blob of %d bytes: %w", len(content), ErrTooLarge)
	}
	sum := sha256.Sum256(content)
	digest = digestScheme + hex.EncodeToString(sum[:])
	if _, err := b.Get(ctx, digest); err == nil {
		return digest, nil // whole and intact; anything else is written anew
	}
	size := len(content)
	for number := 0; number == 0 || len(content) > 0; number++ {
		n := min(len(content), blobChunk)
		if err := b.write(ctx, digest, size, number, content[:n]); err != nil {
			return "", err
		}
		content = content[n:]
	}
	head := binary.BigEndian.AppendUint64(nil, uint64(size))
	return digest, b.write(ctx, digest, 0, headNumber, head)
}

// headNumber stands for the head where a chunk has its number.
const headNumber = -1

func (b *Blobs) write(ctx context.Context, digest string, size, number int, plaintext []byte) error {
	if err := b.engine.space(b.engine.minFree/2 + int64(len(plaintext))); err != nil {
		return err
	}
	sealed, err := b.sealer.Seal(nil, plaintext, b.additional(digest, size, number))
	if err != nil {
		return fmt.Errorf("seal blob %s: %w", digest, err)
	}
	_, err = b.engine.publish(ctx, &nats.Msg{Subject: b.subject(digest, number), Data: sealed}, stateLimit)
	return err
}

// Get returns the content of a blob, or ErrNotFound. Content that does not have the digest is problem
// store.blob_damaged.
func (b *Blobs) Get(ctx context.Context, digest string) ([]byte, error) {
	if err := checkDigest(digest); err != nil {
		return nil, err
	}
	head, err := b.read(ctx, digest, 0, headNumber)
	if err != nil {
		return nil, err
	}
	if len(head) != 8 || binary.BigEndian.Uint64(head) > MaxBlob {
		return nil, blobDamaged(digest, errors.New("malformed head"))
	}
	size := int(binary.BigEndian.Uint64(head))
	content := make([]byte, 0, size)
	for number := 0; number == 0 || len(content) < size; number++ {
		chunk, err := b.read(ctx, digest, size, number)
		if errors.Is(err, ErrNotFound) || err == nil && number > 0 && len(chunk) == 0 {
			return nil, blobDamaged(digest, fmt.Errorf("chunk %d is missing", number))
		}
		if err != nil {
			return nil, err
		}
		content = append(content, chunk...)
	}
	if sum := sha256.Sum256(content); digestScheme+hex.EncodeToString(sum[:]) != digest {
		return nil, blobDamaged(digest, errors.New("the content has another digest"))
	}
	return content, nil
}

func (b *Blobs) read(ctx context.Context, digest string, size, number int) ([]byte, error) {
	var m message
	err := b.engine.read(ctx, func(ctx context.Context, l *link) (err error) {
		m, err = l.getOne(ctx, blobStream, directRequest{LastFor: b.subject(digest, number)})
		return err
	})
	if err != nil {
		return nil, err
	}
	plaintext, err := b.sealer.Open(nil, m.data, b.additional(digest, size, number))
	if err != nil {
		return nil, blobDamaged(digest, err)
	}
	return plaintext, nil
}

// Delete removes a blob. That it is not there is no error.
func (b *Blobs) Delete(ctx context.Context, digest string) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	return b.engine.do(ctx, func(ctx context.Context, l *link) error {
		if err := l.purgeSubject(ctx, blobStream, b.subject(digest, headNumber)); err != nil {
			return err
		}
		return l.purgeSubject(ctx, blobStream, b.chunks(digest)+"*")
	})
}

func (b *Blobs) chunks(digest string) string {
	return blobPrefix + escape(b.name) + "." + strings.TrimPrefix(digest, digestScheme) + "."
}

func (b *Blobs) subject(digest string, number int) string {
	if number == headNumber {
		return b.chunks(digest) + "head"
	}
	return b.chunks(digest) + strconv.Itoa(number)
}

// additional binds a part of a blob to its place.
func (b *Blobs) additional(digest string, size, number int) []byte {
	aad := binary.BigEndian.AppendUint64([]byte("blob\x00"), uint64(size))
	aad = binary.BigEndian.AppendUint64(aad, uint64(int64(number)))
	return append(append(aad, digest...), b.name...) // a digest has one length
}

func checkDigest(digest string) error {
	hexPart, ok := strings.CutPrefix(digest, digestScheme)
	if raw, err := hex.DecodeString(hexPart); !ok || err != nil || len(raw) != sha256.Size || strings.ToLower(hexPart) != hexPart {
		return fmt.Errorf("malformed blob digest: %w", ErrNotFound)
	}
	return nil
}

func blobDamaged(digest string, cause error) error {
	return problem.New(problem.Internal, "store.blob_damaged", "the stored blob %s is damaged", digest).
		WithHint("deploy what it belongs to again, or restore the data directory from a backup").
		WithCause(cause)
}
