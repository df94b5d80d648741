package blobgrant_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/event"
	"sallyport/internal/grant"
	"sallyport/internal/grant/blobgrant"
	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/store"
	"sallyport/internal/testkit"
)

// world is a real store in a folder, with what makes it fail.
type world struct {
	dir    string
	engine *store.Engine
	keys   *keyring.Keyring
	kind   *blobgrant.Kind

	mu    sync.Mutex
	now   time.Time
	fail  error // of the next writes of names
	space error
	admit func(ns ident.Namespace, n int64) error
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// names is a bucket whose writes can be made to fail, before or after they are done.
type names struct {
	blobgrant.Storage
	world *world
	after bool
}

func (n *names) Put(ctx context.Context, key string, value []byte) error {
	n.world.mu.Lock()
	fail := n.world.fail
	n.world.mu.Unlock()
	if fail == nil {
		return n.Storage.Put(ctx, key, value)
	}
	if errors.Is(fail, errAfter) {
		if err := n.Storage.Put(ctx, key, value); err != nil {
			return err
		}
	}
	return fail
}

var (
	errBefore = errors.New("nothing was written")
	errAfter  = errors.New("nobody knows what was written")
)

func openWorld(ctx context.Context, dir string) (*world, error) {
	root, err := keyring.OpenRoot(filepath.Join(dir, "root.key"))
	if err != nil {
		return nil, err
	}
	engine, err := store.Open(ctx, store.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		return nil, err
	}
	keys, err := keyring.New(ctx, root, engine.WrappedKeys())
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	w := &world{dir: dir, engine: engine, keys: keys, now: time.Now()}
	if err := w.open(filepath.Join(dir, "blobs")); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return w, nil
}

// open makes the kind anew, as a restart does.
func (w *world) open(dir string) (err error) {
	w.kind, err = blobgrant.New(blobgrant.Config{
		Dir: dir, Now: w.clock,
		Open: func(ctx context.Context, ns ident.Namespace, name string) (blobgrant.Place, error) {
			sealer, err := w.keys.Sealer(ctx, ns, "blob")
			if err != nil {
				return blobgrant.Place{}, err
			}
			bucket, err := w.engine.Bucket(ctx, "blob."+string(ns)+"."+name, sealer)
			hide := func(key string) string { return fmt.Sprintf("%x", sealer.MACStrings(name, key)) }
			return blobgrant.Place{Names: &names{Storage: bucket, world: w}, Sealer: sealer, Hide: hide}, err
		},
		Space: func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.space
		},
		Admit: func(_ context.Context, ns ident.Namespace, n int64) (func(), error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.admit == nil {
				return func() {}, nil
			}
			return func() {}, w.admit(ns, n)
		},
	})
	return err
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w, err := openWorld(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// reply is the most bytes of a reply in these tests.
const reply = 200 << 10

func (w *world) door(t testing.TB, ns ident.Namespace, g manifest.BlobGrant) *door {
	t.Helper()
	if g.ObjectSize == 0 {
		g.ObjectSize = manifest.DefaultBlobObject
	}
	if g.Quota == 0 {
		g.Quota = manifest.DefaultBlobQuota
	}
	limits := manifest.DefaultGrantLimits()
	limits.Reply = reply
	d, err := w.kind.Open(t.Context(), grant.Opening{Namespace: ns, Function: "f", Name: "pictures", Grant: manifest.Grant{Blob: &g, Limits: limits}})
	if err != nil {
		t.Fatal(err)
	}
	return &door{t, d, grant.Caller{Event: &event.Record{Position: 7}, Attempt: 1}}
}

// door is a door with a caller.
type door struct {
	t testing.TB
	grant.Door
	caller grant.Caller
}

// answer is all that an answer may have.
type answer struct {
	Digest, Upload, Expires, After string
	Size                           int64
	Version                        uint64
	Deleted                        bool
	Objects                        []struct {
		Name, Digest string
		Size         int64
	}
}

func (d *door) try(op, request string, body []byte) (a *answer, content []byte, err error) {
	r, err := d.Do(d.t.Context(), &grant.Call{Caller: d.caller, Op: op, Request: []byte(request), Body: body})
	if err != nil || len(r.JSON) == 0 {
		return nil, nil, err
	}
	a = &answer{}
	if err := json.Unmarshal(r.JSON, a, json.MatchCaseInsensitiveNames(true)); err != nil {
		d.t.Fatal(err)
	}
	return a, r.Body, nil
}

func (d *door) do(op, request string, body []byte) *answer {
	d.t.Helper()
	a, _, err := d.try(op, request, body)
	if err != nil {
		d.t.Fatalf("%s %.100s: %v (%v)", op, request, err, errors.Unwrap(err))
	}
	return a
}

func (d *door) refused(op, request string, body []byte, code string) {
	d.t.Helper()
	_, _, err := d.try(op, request, body)
	if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != code {
		d.t.Errorf("%s %.100s = %v; want %s", op, request, err, code)
	}
}

// read returns an object, read in parts; nil when there is none.
func (d *door) read(name string, part int) ([]byte, error) {
	var out []byte
	version := ""
	for {
		a, content, err := d.try("get", fmt.Sprintf(`{"name":%q,"offset":%d,"length":%d%s}`, name, len(out), part, version), nil)
		if err != nil || a == nil {
			return nil, err
		}
		version = fmt.Sprintf(`,"version":%d`, a.Version)
		out = append(out, content...)
		if int64(len(out)) >= a.Size {
			return append([]byte{}, out...), nil
		}
		if len(content) == 0 {
			return nil, errors.New("a part has no bytes")
		}
	}
}

func (d *door) wants(name string, want []byte) {
	d.t.Helper()
	got, err := d.read(name, 100_000)
	if err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
		d.t.Errorf("%s has %d bytes, %v; want %d", name, len(got), err, len(want))
	}
}

// upload stores an object in parts.
func (d *door) upload(name string, content []byte, part int) *answer {
	d.t.Helper()
	u := d.do("open", fmt.Sprintf(`{"name":%q}`, name), nil).Upload
	for at := 0; at < len(content); at += part {
		d.do("write", fmt.Sprintf(`{"upload":%q,"offset":%d}`, u, at), content[at:min(at+part, len(content))])
	}
	return d.do("commit", fmt.Sprintf(`{"upload":%q}`, u), nil)
}

// files returns the files of content.
func (w *world) files(t testing.TB) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(w.dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wantsFiles wants so many files, and them counted, with what uploads were given of a chunk that is not in its file yet.
func (w *world) wantsFiles(t testing.TB, want int, given ...int64) {
	t.Helper()
	var bytes int64
	for _, n := range given {
		bytes += n
	}
	files := w.files(t)
	for _, f := range files {
		stat, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		bytes += stat.Size() + 4096 // with the block that holds its name
	}
	if len(files) != want {
		t.Errorf("there are %d files; want %d", len(files), want)
	}
	if got := w.kind.Stored("shop"); got != bytes {
		t.Errorf("Stored() = %d; the disk has %d", got, bytes)
	}
}

func random(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b) // never fails
	return b
}

func sum(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// TestSizes stores and reads objects of the sizes around the borders of chunks, at once and in parts.
func TestSizes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	const chunk = 64 << 10
	for _, size := range []int{0, 1, 1000, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 2*chunk + 1, 5*chunk + 17} {
		content := random(size)
		if size > 0 {
			content[0]++ // no content is the beginning of another
		}
		for _, part := range []int{0, 1000, chunk, chunk + 1} {
			name := fmt.Sprint(size, "/", part)
			var a *answer
			if part == 0 {
				a = d.do("put", fmt.Sprintf(`{"name":%q,"digest":%q}`, name, sum(content)), content)
			} else {
				a = d.upload(name, content, part)
			}
			if a.Digest != sum(content) || a.Size != int64(size) || a.Version == 0 {
				t.Errorf("stored %+v; want %d bytes of %s", a, size, sum(content))
			}
			d.wants(name, content)
		}
		for range 20 {
			from := rand.IntN(size + 1)
			length := rand.IntN(size - from + 1)
			_, got, err := d.try("get", fmt.Sprintf(`{"name":"%d/0","offset":%d,"length":%d}`, size, from, min(length, reply-2000)), nil)
			if want := content[from : from+min(length, reply-2000)]; err != nil || !bytes.Equal(got, want) {
				t.Errorf("from %d of %d: %d bytes, %v; want %d", from, size, len(got), err, len(want))
			}
		}
	}
	w.wantsFiles(t, 10) // one for each content
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.open(filepath.Join(w.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	d = w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	d.wants(fmt.Sprint(chunk, "/1000"), append([]byte{random(chunk)[0] + 1}, random(chunk)[1:]...))
	w.wantsFiles(t, 10)
}

// TestContentIsKeptOnce: names of one bucket share content, and it goes with the last of them.
func TestContentIsKeptOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	content := random(100_000)
	d.do("put", `{"name":"a"}`, content)
	d.do("put", `{"name":"b"}`, content)
	d.do("put", `{"name":"b"}`, content)
	w.wantsFiles(t, 1)
	w.door(t, "shop", manifest.BlobGrant{Bucket: "others"}).do("put", `{"name":"a"}`, content)
	w.wantsFiles(t, 2)
	d.do("put", `{"name":"a"}`, []byte("another"))
	w.wantsFiles(t, 3)
	d.wants("b", content)
	if !d.do("delete", `{"name":"b"}`, nil).Deleted {
		t.Error("b was not deleted")
	}
	w.wantsFiles(t, 2)
	d.wants("b", nil)
	d.wants("a", []byte("another"))
}

// TestSpaces: an object is reached by its own namespace, bucket and prefix only, and what reads does not change.
func TestSpaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Prefix: "mine/"})
	content := []byte("mine alone")
	mine.do("put", `{"name":"x"}`, content)
	for name, other := range map[string]*door{
		"namespace": w.door(t, "bank", manifest.BlobGrant{Bucket: "pictures", Prefix: "mine/"}),
		"bucket":    w.door(t, "shop", manifest.BlobGrant{Bucket: "picture", Prefix: "smine/"}),
		"prefix":    w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Prefix: "yours/"}),
	} {
		for _, forged := range []string{"x", "mine/x", "../mine/x", "/mine/x", "../../shop/pictures/mine/x", sum(content), strings.TrimPrefix(sum(content), "sha256:")} {
			other.wants(forged, nil)
			if other.do("delete", fmt.Sprintf(`{"name":%q}`, forged), nil).Deleted {
				t.Errorf("%s: %s was deleted", name, forged)
			}
		}
		if list := other.do("list", `{}`, nil); len(list.Objects) != 0 {
			t.Errorf("%s: a list has %v", name, list)
		}
		// The quota is the same for content that is there as for any other: it does not tell.
		other.do("put", `{"name":"copy"}`, content)
		other.wants("copy", content)
	}
	all := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", ReadOnly: true})
	all.wants("mine/x", content)
	for op, request := range map[string]string{"put": `{"name":"x"}`, "delete": `{"name":"mine/x"}`, "open": `{"name":"x"}`, "write": `{"upload":"00"}`, "commit": `{"upload":"00"}`, "abort": `{"upload":"00"}`} {
		all.refused(op, request, nil, "grant.blob_read_only")
	}
	mine.wants("x", content)
}

// TestForgedUploads: an upload is used by the attempt that opened it through its own grant, and by nothing else.
func TestForgedUploads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := manifest.BlobGrant{Bucket: "pictures"}
	mine := w.door(t, "shop", g)
	u := mine.do("open", `{"name":"x"}`, nil).Upload
	mine.do("write", fmt.Sprintf(`{"upload":%q}`, u), []byte("mine"))
	event7 := mine.caller
	others := map[string]*door{
		"another grant of the bucket": w.door(t, "shop", g), // another function or revision has another door
		"another namespace":           w.door(t, "bank", g),
		"another attempt":             {t, mine.Door, grant.Caller{Event: event7.Event, Attempt: 2}},
		"another event":               {t, mine.Door, grant.Caller{Event: &event.Record{Position: 8}, Attempt: 1}},
		"an event that is not there":  {t, mine.Door, grant.Caller{Attempt: 1}},
	}
	for name, other := range others {
		for _, op := range []string{"write", "commit", "abort"} {
			other.refused(op, fmt.Sprintf(`{"upload":%q,"offset":%d}`, u, 4*min(1, len(op)-4)), []byte("x"), "grant.blob_no_upload")
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for _, forged := range []string{"", u[:30], u + "00", strings.ToUpper(u) + "0", strings.Repeat("0", 32), "../" + u} {
		mine.refused("write", fmt.Sprintf(`{"upload":%q,"offset":4}`, forged), nil, "grant.blob_no_upload")
	}
	mine.do("commit", fmt.Sprintf(`{"upload":%q}`, u), nil)
	mine.refused("commit", fmt.Sprintf(`{"upload":%q}`, u), nil, "grant.blob_no_upload")
	mine.refused("write", fmt.Sprintf(`{"upload":%q,"offset":4}`, u), []byte("late"), "grant.blob_no_upload")
	mine.wants("x", []byte("mine"))
}

func TestVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	first := d.do("put", `{"name":"x","version":0}`, []byte("one")).Version
	d.refused("put", `{"name":"x","version":0}`, []byte("two"), "grant.blob_changed")
	second := d.do("put", fmt.Sprintf(`{"name":"x","version":%d}`, first), []byte("two")).Version
	d.refused("put", fmt.Sprintf(`{"name":"x","version":%d}`, first), []byte("three"), "grant.blob_changed")
	d.refused("get", fmt.Sprintf(`{"name":"x","version":%d}`, first), nil, "grant.blob_changed")
	if d.do("delete", fmt.Sprintf(`{"name":"x","version":%d}`, first), nil).Deleted {
		t.Error("another version was deleted")
	}
	// Two uploads on the same version: the second to be committed changes nothing.
	var uploads []string
	for range 2 {
		uploads = append(uploads, d.do("open", fmt.Sprintf(`{"name":"x","version":%d}`, second), nil).Upload)
	}
	for i, u := range uploads {
		d.do("write", fmt.Sprintf(`{"upload":%q}`, u), []byte{byte('a' + i)})
	}
	d.do("commit", fmt.Sprintf(`{"upload":%q}`, uploads[1]), nil)
	d.refused("commit", fmt.Sprintf(`{"upload":%q}`, uploads[0]), nil, "grant.blob_changed")
	d.wants("x", []byte("b"))
	w.wantsFiles(t, 1)
	d.do("delete", `{"name":"x"}`, nil)
	if again := d.do("put", `{"name":"x"}`, nil).Version; again <= second {
		t.Errorf("version %d came after %d", again, second)
	}
	d.refused("put", fmt.Sprintf(`{"name":"y","digest":%q}`, sum([]byte("other"))), []byte("y"), "grant.blob_digest")
	d.wants("y", nil)
	w.wantsFiles(t, 1)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Prefix: "p/", ObjectSize: 1000, TTL: time.Hour})
	d.do("put", `{"name":"x"}`, random(1000))
	for _, tc := range []struct{ op, request, code string }{
		{"put", `{}`, "grant.blob_request"},
		{"put", `{"name":""}`, "grant.blob_request"},
		{"put", `{"name":"a\u0000b"}`, "grant.blob_request"},
		{"put", `{"name":"a\nb"}`, "grant.blob_request"},
		{"put", fmt.Sprintf(`{"name":%q}`, strings.Repeat("n", 511)), "grant.blob_request"},
		{"put", `{"name":"y","ttl":3601}`, "grant.blob_request"},
		{"put", `{"name":"y","ttl":-1}`, "grant.blob_request"},
		{"put", `{"name":"y","ttl":1e300}`, "grant.blob_request"},
		{"put", `{"name":"y","version":-1}`, "grant.blob_request"},
		{"put", `{"name":"y","digest":"md5:00"}`, "grant.blob_request"},
		{"put", `{"name":"y","content":"z"}`, "grant.blob_request"},
		{"put", `{"name":["y"]}`, "grant.blob_request"},
		{"get", `{"name":"x","offset":-1}`, "grant.blob_request"},
		{"get", `{"name":"x","offset":1001}`, "grant.blob_request"},
		{"get", `{"name":"x","offset":9223372036854775807}`, "grant.blob_request"},
		{"get", `{"name":"x","length":-1}`, "grant.blob_request"},
		{"list", `{"limit":1001}`, "grant.blob_request"},
		{"list", `{"limit":-1}`, "grant.blob_request"},
		{"rename", `{"name":"x"}`, "grant.blob_request"},
		{"", `{}`, "grant.blob_request"},
	} {
		d.refused(tc.op, tc.request, nil, tc.code)
	}
	d.refused("put", `{"name":"y"}`, random(1001), "grant.blob_too_large")
	u := d.do("open", `{"name":"y"}`, nil).Upload
	d.do("write", fmt.Sprintf(`{"upload":%q}`, u), random(900))
	d.refused("write", fmt.Sprintf(`{"upload":%q,"offset":900}`, u), random(101), "grant.blob_too_large")
	d.refused("write", fmt.Sprintf(`{"upload":%q,"offset":0}`, u), random(10), "grant.blob_offset")
	d.refused("write", fmt.Sprintf(`{"upload":%q,"offset":901}`, u), random(10), "grant.blob_offset")
	d.do("write", fmt.Sprintf(`{"upload":%q,"offset":900}`, u), nil)
	d.do("abort", fmt.Sprintf(`{"upload":%q}`, u), nil)
	w.wantsFiles(t, 1)
	big := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	big.upload("big", random(reply), 50_000)
	big.refused("get", fmt.Sprintf(`{"name":"big","length":%d}`, reply), nil, "grant.blob_too_large")
	if _, content, err := big.try("get", `{"name":"big"}`, nil); err != nil || len(content) == 0 || len(content) >= reply {
		t.Errorf("the first part has %d bytes, %v", len(content), err)
	}
}

// TestUploadsAreBounded: who opens uploads and leaves them takes no more than a little, and nothing is left of it.
func TestUploadsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Quota: 10 << 20})
	for range 8 {
		u := d.do("open", `{"name":"x"}`, nil).Upload
		d.do("write", fmt.Sprintf(`{"upload":%q}`, u), random(100_000))
	}
	d.refused("open", `{"name":"x"}`, nil, "grant.blob_uploads")
	d.refused("put", `{"name":"x"}`, nil, "grant.blob_uploads")
	for attempt := 2; attempt <= 8; attempt++ {
		other := &door{t, d.Door, grant.Caller{Attempt: attempt}}
		for range 8 {
			other.do("open", `{"name":"x"}`, nil)
		}
	}
	(&door{t, d.Door, grant.Caller{Attempt: 9}}).refused("open", `{"name":"x"}`, nil, "grant.blob_uploads")
	w.wantsFiles(t, 64, 8*(100_000%(64<<10)))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	w.wantsFiles(t, 0)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUploadsEnd: an upload that nobody goes on with is given up.
func TestUploadsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{dir: t.TempDir()}
		var err error
		w.kind, err = blobgrant.New(blobgrant.Config{
			Dir: filepath.Join(w.dir, "blobs"),
			Open: func(context.Context, ident.Namespace, string) (blobgrant.Place, error) {
				return blobgrant.Place{Names: empty{}, Sealer: plain{}, Hide: func(s string) string { return s }}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Quota: 1 << 20})
		u := d.do("open", `{"name":"x"}`, nil).Upload
		for i := range 10 {
			d.do("write", fmt.Sprintf(`{"upload":%q,"offset":%d}`, u, i*80_000), random(80_000))
			time.Sleep(5 * time.Minute)
		}
		w.wantsFiles(t, 1, 800_000%(64<<10))
		d.refused("put", `{"name":"y"}`, random(300_000), "grant.blob_full")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		w.wantsFiles(t, 0)
		d.refused("commit", fmt.Sprintf(`{"upload":%q}`, u), nil, "grant.blob_no_upload")
		d.do("put", `{"name":"y"}`, random(300_000)) // it has its part of the quota back
	})
}

// empty is a storage that keeps nothing, and plain a sealer that seals nothing.
type empty struct{}

func (empty) Put(context.Context, string, []byte) error { return nil }
func (empty) Delete(context.Context, string) error      { return nil }
func (empty) List(context.Context, string, string, int) ([]store.Entry, error) {
	return nil, nil
}

type plain struct{}

func (plain) Seal(dst, p, _ []byte) ([]byte, error) {
	return append(append(dst, p...), make([]byte, keyring.Overhead)...), nil
}

func (plain) Open(dst, p, _ []byte) ([]byte, error) {
	return append(dst, p[:len(p)-keyring.Overhead]...), nil
}

func TestQuota(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Quota: 100_000})
	d.do("put", `{"name":"a"}`, random(40_000))
	d.do("put", `{"name":"b"}`, random(40_000)) // counted although it is there
	d.refused("put", `{"name":"c"}`, random(40_000), "grant.blob_full")
	d.do("put", `{"name":"d","ttl":60}`, nil)
	d.do("delete", `{"name":"a"}`, nil)
	u := d.do("open", `{"name":"c"}`, nil).Upload
	d.do("write", fmt.Sprintf(`{"upload":%q}`, u), random(30_000))
	d.refused("put", `{"name":"e"}`, random(20_000), "grant.blob_full") // the upload counts
	d.do("commit", fmt.Sprintf(`{"upload":%q}`, u), nil)
	d.refused("put", `{"name":"e"}`, random(14_000), "grant.blob_full")
	w.set(func() { w.now = w.now.Add(time.Minute) })
	d.do("put", `{"name":"e"}`, random(9_000)) // in the place of d, whose time is over
	d.wants("d", nil)

	var asked int64
	w.set(func() {
		w.admit = func(ns ident.Namespace, n int64) error {
			if asked += n; ns != "bank" || asked > 60_000 {
				return problem.New(problem.Exhausted, "namespace.storage_full", "no")
			}
			return nil
		}
	})
	other := w.door(t, "bank", manifest.BlobGrant{Bucket: "pictures"})
	other.do("put", `{"name":"a"}`, random(40_000))
	other.refused("put", `{"name":"b"}`, random(40_000), "namespace.storage_full")
	if got := w.kind.Stored("bank"); got < 44_000 || got > 45_000 {
		t.Errorf("Stored() = %d", got)
	}
}

func TestTTL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", TTL: time.Hour})
	if a := d.do("put", `{"name":"hour"}`, []byte("h")); a.Expires == "" {
		t.Error("an object has no end")
	}
	d.do("put", `{"name":"minute","ttl":60}`, []byte("m"))
	w.set(func() { w.now = w.now.Add(time.Minute) })
	d.wants("minute", nil)
	d.wants("hour", []byte("h"))
	if list := d.do("list", `{}`, nil); len(list.Objects) != 1 {
		t.Errorf("the list has %v", list)
	}
	d.do("put", `{"name":"minute","version":0}`, []byte("again"))
	w.set(func() { w.now = w.now.Add(time.Hour) })
	d.do("put", `{"name":"new"}`, []byte("n"))
	w.wantsFiles(t, 1) // those whose time is over went with it
}

func TestLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Prefix: "p/"})
	w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Prefix: "q/"}).do("put", `{"name":"a/0"}`, nil)
	var want []string
	for i := range 25 {
		name := fmt.Sprintf("a/%02d", i)
		d.do("put", fmt.Sprintf(`{"name":%q}`, name), []byte(name))
		want = append(want, name)
	}
	d.do("put", `{"name":"b"}`, nil)
	var got []string
	for after := ""; ; {
		list := d.do("list", fmt.Sprintf(`{"prefix":"a/","after":%q,"limit":10}`, after), nil)
		for _, o := range list.Objects {
			got = append(got, o.Name)
			if o.Digest != sum([]byte(o.Name)) || o.Size != 4 {
				t.Errorf("listed %+v", o)
			}
		}
		if after = list.After; after == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v; want %v", got, want)
	}
}

// TestSealed: nothing of an object is on the disk in clear, not its name, not its digest.
func TestSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	content := bytes.Repeat([]byte("the picture of jane "), 20_000)
	a := d.upload("jane@example.org", content, 100_000)
	u := d.do("open", `{"name":"joe@example.org"}`, nil).Upload // what is not committed is sealed too
	d.do("write", fmt.Sprintf(`{"upload":%q}`, u), content[:300_000])
	looked := 0
	err := filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		looked++
		for _, clear := range []string{"picture of jane", "@example.org", strings.TrimPrefix(a.Digest, "sha256:")} {
			if bytes.Contains(raw, []byte(clear)) || strings.Contains(path, clear) {
				t.Errorf("%s has %q in clear", path, clear)
			}
		}
		return nil
	})
	if err != nil || looked < 4 {
		t.Errorf("looked at %d files, %v", looked, err)
	}
}

// TestDamage changes the file of an object in every way: what is read then is an error, and storing it again heals it.
func TestDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	const chunk = 64<<10 + keyring.Overhead
	content, other := random(200_000), random(200_000)
	other[0]++
	d.upload("other", other, 150_000)
	second := w.files(t)[0]
	d.upload("x", content, 150_000)
	files := w.files(t)
	path := files[0]
	if path == second {
		path = files[1]
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	exchanged, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string][]byte{
		"cut at a chunk":           whole[:2*chunk],
		"cut":                      whole[:len(whole)-1],
		"longer":                   append(bytes.Clone(whole), 0),
		"a chunk more":             append(bytes.Clone(whole), whole[:chunk]...),
		"chunks in another order":  slices.Concat(whole[chunk:2*chunk], whole[:chunk], whole[2*chunk:]),
		"a chunk twice":            slices.Concat(whole[:chunk], whole[:chunk], whole[2*chunk:]),
		"a chunk of another":       slices.Concat(whole[:chunk], exchanged[chunk:2*chunk], whole[2*chunk:]),
		"another object's content": exchanged,
		"empty":                    {},
		"gone":                     nil,
	}
	for range 40 {
		flipped := bytes.Clone(whole)
		at := rand.IntN(len(flipped))
		flipped[at] ^= 1 << rand.IntN(8)
		damages[fmt.Sprint("a bit of byte ", at)] = flipped
	}
	for name, damaged := range damages {
		if damaged == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, damaged, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := d.read("x", 100_000); problem.From(err).Code != "grant.blob_damaged" {
			t.Errorf("%s: %d bytes were read, %v; want grant.blob_damaged", name, len(got), err)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What was found damaged is not shared with new objects, and what is cut neither.
	whole[chunk/2] ^= 1
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.read("x", 100_000); problem.From(err).Code != "grant.blob_damaged" {
		t.Errorf("a changed byte was read: %v", err)
	}
	d.upload("copy", content, 150_000)
	d.wants("copy", content)
	d.upload("x", content, 150_000)
	d.wants("x", content)
	if err := os.Truncate(second, chunk); err != nil {
		t.Fatal(err)
	}
	d.upload("other", other, 150_000)
	d.wants("other", other)
}

// TestFailedWrites: when a name could not be written, or nobody knows whether it was, the bucket is as the disk says, and nothing is left over.
func TestFailedWrites(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]error{"before": errBefore, "after": errAfter} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
			d.do("put", `{"name":"x"}`, []byte("one"))
			w.set(func() { w.fail = fail })
			if _, _, err := d.try("put", `{"name":"x"}`, []byte("two")); err == nil {
				t.Error("a write that failed was acknowledged")
			}
			w.set(func() { w.fail = nil })
			want := []byte("one")
			if fail == errAfter {
				want = []byte("two")
			}
			d.wants("x", want)
			w.wantsFiles(t, 1)
			d.do("put", `{"name":"x"}`, []byte("three"))
			d.wants("x", []byte("three"))
			w.wantsFiles(t, 1)
		})
	}
}

// TestFull: no room on the disk is a problem of its own, before and in the middle of an upload, and leaves nothing.
func TestFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	w.set(func() { w.space = store.ErrStorageFull })
	d.refused("put", `{"name":"x"}`, []byte("one"), "store.full")
	w.set(func() { w.space = nil })
	w.wantsFiles(t, 0)

	disk := testkit.NewDisk(t, 8)
	if err := w.open(filepath.Join(disk.Path, "blobs")); err != nil {
		t.Fatal(err)
	}
	d = w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	u := d.do("open", `{"name":"x"}`, nil).Upload
	var failed error
	for at := 0; at < 20<<20 && failed == nil; at += 1 << 20 {
		_, _, failed = d.try("write", fmt.Sprintf(`{"upload":%q,"offset":%d}`, u, at), random(1<<20))
	}
	if p := problem.From(failed); p.Code != "store.full" {
		t.Errorf("a write on a full disk = %v; want store.full", failed)
	}
	d.refused("commit", fmt.Sprintf(`{"upload":%q}`, u), nil, "grant.blob_no_upload")
	if got := w.kind.Stored("shop"); got != 0 {
		t.Errorf("%d bytes are left", got)
	}
	d.do("put", `{"name":"y"}`, random(1<<20))
}

// TestRemove: nothing of a namespace is left, and a door that is still there gets no answer.
func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	other := w.door(t, "shops", manifest.BlobGrant{Bucket: "pictures"})
	d.do("put", `{"name":"x"}`, []byte("one"))
	other.do("put", `{"name":"x"}`, []byte("one"))
	if err := w.kind.Remove("shop"); err != nil {
		t.Fatal(err)
	}
	d.refused("get", `{"name":"x"}`, nil, "grant.closed")
	d.refused("put", `{"name":"x"}`, nil, "grant.closed")
	other.wants("x", []byte("one"))
	if w.kind.Stored("shop") != 0 || len(w.files(t)) != 1 {
		t.Error("something is left")
	}
}

// TestConcurrent: objects that are written, read and deleted by many at a time are one of those that were written.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := manifest.BlobGrant{Bucket: "pictures"}
	var all sync.WaitGroup
	for worker := range 6 {
		all.Go(func() {
			d := w.door(t, "shop", g)
			d.caller.Attempt = worker
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 60 {
				name := fmt.Sprint("o", r.IntN(3))
				switch r.IntN(4) {
				case 0:
					d.do("delete", fmt.Sprintf(`{"name":%q}`, name), nil)
				case 1:
					content := bytes.Repeat([]byte{byte(r.IntN(3))}, 150_000)
					d.upload(name, content, 70_000)
				default:
					got, err := d.read(name, 60_000)
					if problem.From(err).Code == "grant.blob_changed" {
						continue
					}
					if err != nil || got != nil && (len(got) != 150_000 || !bytes.Equal(got, bytes.Repeat(got[:1], len(got)))) {
						t.Errorf("%s has %d bytes that were not written so, %v", name, len(got), err)
					}
				}
			}
		})
	}
	all.Wait()
	d := w.door(t, "shop", g)
	contents := map[string]bool{}
	for _, o := range d.do("list", `{}`, nil).Objects {
		contents[o.Digest] = true
	}
	w.wantsFiles(t, len(contents))
}

// childFolder tells the test binary that it is the process which is killed.
const childFolder = "SALLYPORT_TEST_BLOB_FOLDER"

// TestKill kills a process that stores objects, again and again: what it was told is there whole, and of all else there is nothing.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childFolder); dir != "" {
		child(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	total := 0
	for round := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), childFolder+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		acknowledged := map[string]string{} // digests by names
		for heard := 0; lines.Scan(); {
			name, digest, ok := strings.Cut(lines.Text(), " ")
			if !ok {
				t.Fatalf("the child says %q", lines.Text())
			}
			acknowledged[name] = digest
			if heard++; heard == 5+round*3 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		total += len(acknowledged)
		check(t, dir, acknowledged)
	}
	if total < 50 {
		t.Fatalf("only %d were acknowledged", total)
	}
}

// check looks at what a killed process left.
func check(t *testing.T, dir string, acknowledged map[string]string) {
	t.Helper()
	w, err := openWorld(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	d.do("stat", `{"name":"x"}`, nil) // the bucket is loaded
	contents := map[string]bool{}
	for _, o := range d.do("list", `{"limit":1000}`, nil).Objects {
		contents[o.Digest] = true
		got, err := d.read(o.Name, 100_000)
		if err != nil || sum(got) != o.Digest {
			t.Errorf("%s has %d bytes of %s, %v; want %s", o.Name, len(got), sum(got), err, o.Digest)
		}
		if want := acknowledged[o.Name]; want == o.Digest {
			delete(acknowledged, o.Name)
		}
	}
	// The last object of each name that was acknowledged may have been replaced by one that was not.
	for name := range acknowledged {
		if a := d.do("stat", fmt.Sprintf(`{"name":%q}`, name), nil); a == nil {
			t.Errorf("%s was acknowledged, and is gone", name)
		}
	}
	w.wantsFiles(t, len(contents))
	if err := w.engine.Close(); err != nil {
		t.Fatal(err)
	}
}

func child(t *testing.T, dir string) {
	w, err := openWorld(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures"})
	for n := rand.Uint64(); ; n++ {
		name := fmt.Sprint("o", n%40)
		a := d.upload(name, fmt.Appendf(random(100_000), "%d", n), 30_000)
		fmt.Printf("%s %s\n", name, a.Digest)
	}
}

// FuzzRequest: no request of a function does more than be served or refused with a problem that has a code of a kind's own.
func FuzzRequest(f *testing.F) {
	w := newWorld(f)
	for _, seed := range []string{`{"name":"x"}`, `{"name":"x","offset":1,"length":2}`, `{"prefix":"a","after":"b","limit":3}`, `{"upload":"00112233445566778899aabbccddeeff","offset":9}`, `{"name":"x","version":0,"ttl":1.5,"digest":"sha256:00"}`} {
		for _, op := range []string{"put", "get", "stat", "delete", "list", "open", "write", "commit", "abort"} {
			f.Add(op, seed, []byte("body"))
		}
	}
	secret := w.door(f, "shop", manifest.BlobGrant{Bucket: "pictures", Prefix: "secret/"})
	secret.do("put", `{"name":"x"}`, []byte("nobody else's"))
	f.Fuzz(func(t *testing.T, op, request string, body []byte) {
		d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", Prefix: "open/", Quota: 1 << 20})
		defer d.Close()
		_, content, err := d.try(op, request, body)
		if p, ok := errors.AsType[*problem.Error](err); err != nil && (!ok || p.Kind == problem.Internal) {
			t.Errorf("%q %q = %v", op, request, err)
		}
		if bytes.Contains(content, []byte("nobody else's")) {
			t.Errorf("%q %q read another's object", op, request)
		}
		(&door{t, secret.Door, secret.caller}).wants("x", []byte("nobody else's"))
	})
}

// FuzzObject: what is read of a stored object is what would be stored of it.
func FuzzObject(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 9}, make([]byte, 70)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if again, ok := blobgrant.Reparse(b); ok && !bytes.Equal(again, b) {
			t.Errorf("%x is read as %x", b, again)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	w := newWorld(b)
	d := w.door(b, "shop", manifest.BlobGrant{Bucket: "pictures"})
	d.upload("x", random(16<<20), 1<<20)
	b.SetBytes(16 << 20)
	for b.Loop() {
		if _, err := d.read("x", 150_000); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpload(b *testing.B) {
	w := newWorld(b)
	d := w.door(b, "shop", manifest.BlobGrant{Bucket: "pictures"})
	content := random(16 << 20)
	b.SetBytes(16 << 20)
	for n := 0; b.Loop(); n++ {
		content[n]++
		d.upload("x", content, 256<<10)
	}
}
