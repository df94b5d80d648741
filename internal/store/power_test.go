package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"sallyport/internal/store"
	"sallyport/internal/testkit"
)

// TestPowerCut drops everything that was not synced, right after the acknowledgements, and looks for
// what was acknowledged: payloads, values, deletions, blobs and wrapped keys; in new and in old streams.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	disk := testkit.NewDisk(t, 128)
	acked := map[uint64][]byte{}
	values := map[string]string{}
	var digests []string
	for round := range 4 {
		e, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(disk.Path, "store"), MinFree: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		s, bucket, blobs := openStream(t, e, "s"), openBucket(t, e, "b"), openBlobs(t, e, "b")
		sameAsAcked(t, fmt.Sprint("before round ", round), s, acked)
		checkState(t, round, bucket, blobs, values, digests)
		if _, err := e.WrappedKeys().Get(t.Context(), "key"); round > 0 && err != nil {
			t.Errorf("round %d: a wrapped key: %v", round, err)
		}
		for i := range 25 {
			payload := bytes.Repeat([]byte(fmt.Sprintf("%4d%4d", round, i)), 4<<10)
			acked[publish(t, s, payload, store.AnyLast)] = payload
		}
		for i := range 10 {
			key := fmt.Sprint(round, "/", i)
			put(t, bucket, key, key)
			put(t, bucket, key, key+" again")
			values[key] = key + " again"
		}
		gone := fmt.Sprint(round, "/3")
		if err := bucket.Delete(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		delete(values, gone)
		digest, err := blobs.Put(t.Context(), bytes.Repeat([]byte{byte(round)}, 3<<20))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
		if err := e.WrappedKeys().Put(t.Context(), "key", []byte{byte(round)}); err != nil {
			t.Fatal(err)
		}
		if err := disk.CutPower(); err != nil {
			t.Fatal(err)
		}
		_ = e.Close() // its disk is gone
		if err := disk.Restore(); err != nil {
			t.Fatal(err)
		}
	}
}

func checkState(t *testing.T, round int, bucket *store.Bucket, blobs *store.Blobs, values map[string]string, digests []string) {
	t.Helper()
	entries, err := bucket.List(t.Context(), "", "", 0)
	if err != nil {
		t.Errorf("round %d: List = %v", round, err)
	}
	for _, e := range entries {
		if values[e.Key] != string(e.Value) {
			t.Errorf("round %d: key %q has the value %q, want %q", round, e.Key, e.Value, values[e.Key])
		}
	}
	if len(entries) != len(values) {
		t.Errorf("round %d: %d keys, want %d", round, len(entries), len(values))
	}
	for i, digest := range digests {
		content, err := blobs.Get(t.Context(), digest)
		if errors.Is(err, store.ErrNotFound) || len(content) != 3<<20 {
			t.Errorf("round %d: blob %d: %d bytes, %v", round, i, len(content), err)
		}
	}
}
