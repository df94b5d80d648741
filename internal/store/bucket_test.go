package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// fakeSealer binds values to their additional data without hiding them very well: it turns every bit
// around, so that a plain text on disk is found.
type fakeSealer struct{}

var errFake = errors.New("does not open")

func (fakeSealer) Seal(dst, plaintext, aad []byte) ([]byte, error) {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(aad)))
	dst = append(dst, aad...)
	for _, c := range plaintext {
		dst = append(dst, ^c)
	}
	return dst, nil
}

func (fakeSealer) Open(dst, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < 2 || len(sealed) < 2+len(aad) || int(binary.BigEndian.Uint16(sealed)) != len(aad) || !bytes.Equal(sealed[2:2+len(aad)], aad) {
		return dst, errFake
	}
	for _, c := range sealed[2+len(aad):] {
		dst = append(dst, ^c)
	}
	return dst, nil
}

func openBucket(t testing.TB, e *store.Engine, name string) *store.Bucket {
	t.Helper()
	b, err := e.Bucket(context.Background(), name, fakeSealer{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, b *store.Bucket, key, value string) {
	t.Helper()
	if err := b.Put(context.Background(), key, []byte(value)); err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
}

func list(t testing.TB, b *store.Bucket, prefix, after string, limit int) []string {
	t.Helper()
	entries, err := b.List(context.Background(), prefix, after, limit)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	got := []string{}
	for _, e := range entries {
		got = append(got, e.Key+"="+string(e.Value))
	}
	return got
}

func TestBucket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	b := openBucket(t, e, "tokens")
	if _, err := b.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of no key = %v, want ErrNotFound", err)
	}
	if err := b.Delete(t.Context(), "a"); err != nil {
		t.Errorf("Delete of no key = %v", err)
	}
	if err := b.Create(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := b.Create(t.Context(), "a", []byte("2")); !errors.Is(err, store.ErrExists) {
		t.Errorf("second Create = %v, want ErrExists", err)
	}
	put(t, b, "a", "3")
	put(t, b, "b", "")
	put(t, b, "gone", "x")
	if err := b.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := b.Create(t.Context(), "again", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "again"); err != nil {
		t.Fatal(err)
	}
	if err := b.Create(t.Context(), "again", []byte("2")); err != nil {
		t.Errorf("Create after Delete = %v", err)
	}
	put(t, openBucket(t, e, "other"), "a", "of another bucket")
	want := []string{"a=3", "again=2", "b="}
	if diff := cmp.Diff(want, list(t, b, "", "", 0)); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	closeEngine(t, e)
	b = openBucket(t, open(t, dir), "tokens")
	if diff := cmp.Diff(want, list(t, b, "", "", 0)); diff != "" {
		t.Errorf("List after a restart (-want +got):\n%s", diff)
	}
	if got, err := b.Get(t.Context(), "a"); err != nil || string(got) != "3" {
		t.Errorf("Get = %q, %v", got, err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	e := open(t, t.TempDir())
	b := openBucket(t, e, "b")
	keys := []string{"a", "a/1", "a/2", "a/3", "a0", "b/1", "ä", "*", ">", "a.b", "a b", "=", "\x00", "\xff", "x\ny", strings.Repeat("k", store.MaxKey), strings.Repeat("\xff", store.MaxKey)}
	for _, key := range keys {
		put(t, b, key, "v")
	}
	for _, tt := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"a/", "", 0, []string{"a/1", "a/2", "a/3"}},
		{"a/", "", 2, []string{"a/1", "a/2"}},
		{"a/", "a/2", 2, []string{"a/3"}},
		{"a/", "a/3", 0, nil},
		{"a/", "z", 0, nil},
		{"a/", "A", 1, []string{"a/1"}},
		{"none", "", 0, nil},
		{"", "a", 3, []string{"a b", "a.b", "a/1"}},
		{"\xff", "", 1, []string{"\xff"}},
	} {
		got, err := b.Keys(t.Context(), tt.prefix, tt.after, tt.limit)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Keys(%q, %q, %d) (-want +got):\n%s", tt.prefix, tt.after, tt.limit, diff)
		}
	}
	if got := len(list(t, b, "", "", 0)); got != len(keys) {
		t.Errorf("List = %d entries, want %d", got, len(keys))
	}
	for _, bad := range []string{"", strings.Repeat("k", store.MaxKey+1)} {
		if err := b.Put(t.Context(), bad, nil); err == nil {
			t.Errorf("Put of a key of %d bytes was accepted", len(bad))
		}
		if _, err := b.Get(t.Context(), bad); err == nil {
			t.Errorf("Get of a key of %d bytes was accepted", len(bad))
		}
	}
	for _, bad := range []string{"", strings.Repeat("k", store.MaxName+1)} {
		if _, err := e.Bucket(t.Context(), bad, fakeSealer{}); err == nil {
			t.Errorf("Bucket with a name of %d bytes was accepted", len(bad))
		}
	}
}

// TestListOfLargeValues holds that values which do not fit in one answer are still all listed.
func TestListOfLargeValues(t *testing.T) {
	t.Parallel()
	b := openBucket(t, open(t, t.TempDir()), "b")
	value := strings.Repeat("v", 3<<20)
	for i := range 4 {
		put(t, b, fmt.Sprint(i), value)
	}
	entries, err := b.List(t.Context(), "", "", 0)
	if err != nil || len(entries) != 4 {
		t.Fatalf("List = %d entries, %v; want 4", len(entries), err)
	}
	for i, e := range entries {
		if e.Key != fmt.Sprint(i) || string(e.Value) != value {
			t.Errorf("entry %d is wrong", i)
		}
	}
	if err := b.Put(t.Context(), "x", make([]byte, store.MaxPayload)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Put of too large a value = %v, want ErrTooLarge", err)
	}
}

func TestHandlesOfABucketAgree(t *testing.T) {
	t.Parallel()
	e := open(t, t.TempDir())
	one, two := openBucket(t, e, "b"), openBucket(t, e, "b")
	list(t, one, "", "", 0)
	put(t, two, "a", "1")
	if diff := cmp.Diff([]string{"a=1"}, list(t, one, "", "", 0)); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	var group sync.WaitGroup
	var created sync.Map
	for i := range 8 {
		group.Go(func() {
			b := openBucket(t, e, "b")
			if err := b.Create(context.Background(), "once", []byte(fmt.Sprint(i))); err == nil {
				created.Store(i, true)
			}
			put(t, b, fmt.Sprint("k", i), "v")
			if i%2 == 0 {
				if err := b.Delete(context.Background(), fmt.Sprint("k", i)); err != nil {
					t.Error(err)
				}
			}
			list(t, b, "", "", 0)
		})
	}
	group.Wait()
	winners := 0
	created.Range(func(any, any) bool { winners++; return true })
	if winners != 1 {
		t.Errorf("%d writers created one key", winners)
	}
	if diff := cmp.Diff([]string{"k1=v", "k3=v", "k5=v", "k7=v"}, list(t, one, "k", "", 0)); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	blobs := openBlobs(t, e, "modules")
	contents := map[string][]byte{
		"empty":      {},
		"small":      []byte("marker of a small blob"),
		"one chunk":  bytes.Repeat([]byte("c"), 1<<20),
		"two chunks": bytes.Repeat([]byte("d"), 1<<20+1),
		"large":      bytes.Repeat([]byte("0123456789"), 1<<20),
	}
	digests := map[string]string{}
	for name, content := range contents {
		digest, err := blobs.Put(t.Context(), content)
		if err != nil {
			t.Fatal(err)
		}
		digests[name] = digest
		again, err := blobs.Put(t.Context(), content)
		if err != nil || again != digest {
			t.Errorf("second Put of %s = %s, %v; want %s", name, again, err, digest)
		}
	}
	closeEngine(t, e)
	e = open(t, dir)
	blobs = openBlobs(t, e, "modules")
	for name, content := range contents {
		got, err := blobs.Get(t.Context(), digests[name])
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("Get of %s = %d bytes, %v", name, len(got), err)
		}
		if _, err := openBlobs(t, e, "other").Get(t.Context(), digests[name]); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get of %s in another space = %v, want ErrNotFound", name, err)
		}
	}
	for range 2 {
		if err := blobs.Delete(t.Context(), digests["large"]); err != nil {
			t.Errorf("Delete = %v", err)
		}
		if _, err := blobs.Get(t.Context(), digests["large"]); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get after Delete = %v, want ErrNotFound", err)
		}
	}
	for _, bad := range []string{"", "sha256:", "sha256:" + strings.Repeat("A", 64), "md5:" + strings.Repeat("0", 64), strings.Repeat("0", 64), "sha256:" + strings.Repeat("*", 64)} {
		if _, err := blobs.Get(t.Context(), bad); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get(%q) = %v, want ErrNotFound", bad, err)
		}
		if err := blobs.Delete(t.Context(), bad); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Delete(%q) = %v, want ErrNotFound", bad, err)
		}
	}
	if _, err := blobs.Put(t.Context(), make([]byte, store.MaxBlob+1)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Put of too large a blob = %v, want ErrTooLarge", err)
	}
}

func openBlobs(t testing.TB, e *store.Engine, name string) *store.Blobs {
	t.Helper()
	b, err := e.Blobs(context.Background(), name, fakeSealer{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lateSealer seals under other additional data than it opens: the stored values are of another place.
type lateSealer struct{ fakeSealer }

func (s lateSealer) Seal(dst, plaintext, aad []byte) ([]byte, error) {
	return s.fakeSealer.Seal(dst, plaintext, append([]byte("x"), aad...))
}

func TestMisplacedValuesDoNotOpen(t *testing.T) {
	t.Parallel()
	e := open(t, t.TempDir())
	bucket, err := e.Bucket(t.Context(), "b", lateSealer{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, bucket, "key", "value")
	if _, err := bucket.Get(t.Context(), "key"); !errors.Is(err, errFake) || strings.Contains(err.Error(), "value ") && strings.Contains(err.Error(), "=value") {
		t.Errorf("Get = %v, want %v", err, errFake)
	}
	if _, err := bucket.List(t.Context(), "", "", 0); !errors.Is(err, errFake) {
		t.Errorf("List = %v, want %v", err, errFake)
	}
	blobs, err := e.Blobs(t.Context(), "b", lateSealer{})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := blobs.Put(t.Context(), []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = blobs.Get(t.Context(), digest)
	if got := problem.From(err).Code; got != "store.blob_damaged" {
		t.Errorf("Get: problem %q, want store.blob_damaged", got)
	}
	// Putting it again with a sealer that works repairs it.
	if _, err := openBlobs(t, e, "b").Put(t.Context(), []byte("content")); err != nil {
		t.Fatal(err)
	}
	if got, err := openBlobs(t, e, "b").Get(t.Context(), digest); err != nil || string(got) != "content" {
		t.Errorf("Get after repair = %q, %v", got, err)
	}
}

// TestNothingSealedIsInClear looks through every file for what buckets and blobs were given.
func TestNothingSealedIsInClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	put(t, openBucket(t, e, "b"), "key", "marker-in-a-value")
	if _, err := openBlobs(t, e, "b").Put(t.Context(), []byte("marker-in-a-blob")); err != nil {
		t.Fatal(err)
	}
	closeEngine(t, e)
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte("marker-in-a")) {
			t.Errorf("%s holds what was to be sealed", path)
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("looked at %d files, %v", files, err)
	}
}

func BenchmarkBucket(b *testing.B) {
	bucket := openBucket(b, open(b, b.TempDir()), "b")
	for i := range 1000 {
		put(b, bucket, fmt.Sprintf("key/%04d", i), strings.Repeat("v", 200))
	}
	b.Run("Put", func(b *testing.B) {
		for b.Loop() {
			put(b, bucket, "key/0000", "value")
		}
	})
	b.Run("Get", func(b *testing.B) {
		for b.Loop() {
			if _, err := bucket.Get(context.Background(), "key/0500"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("List 1000", func(b *testing.B) {
		for b.Loop() {
			if got := len(list(b, bucket, "key/", "", 0)); got != 1000 {
				b.Fatalf("%d entries", got)
			}
		}
	})
}

// TestBucketSize: what a bucket takes is known without its keys, also when its values do not fit in one answer.
func TestBucketSize(t *testing.T) {
	t.Parallel()
	e := open(t, t.TempDir())
	b := openBucket(t, e, "sizes")
	if keys, bytes, err := b.Size(t.Context()); keys != 0 || bytes != 0 || err != nil {
		t.Errorf("Size of nothing = %d, %d, %v", keys, bytes, err)
	}
	want := int64(0)
	for i := range 6 {
		key, value := fmt.Sprint(i), strings.Repeat("v", 2<<20)
		put(t, b, key, value)
		sealed, err := fakeSealer{}.Seal(nil, []byte(value), []byte("bucket\x00\x05sizes"+key))
		if err != nil {
			t.Fatal(err)
		}
		want += int64(len(sealed))
	}
	put(t, openBucket(t, e, "others"), "x", "y")
	if keys, bytes, err := b.Size(t.Context()); keys != 6 || bytes != want || err != nil {
		t.Errorf("Size = %d, %d, %v; want 6, %d", keys, bytes, err, want)
	}
}
