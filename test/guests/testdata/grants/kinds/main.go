// Command kinds uses a grant of each kind by the methods of the SDK for it, and fails at the first answer that is not right: see kinds_test.go.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	guest "sallyport/sdk/go"
	"sallyport/sdk/go/guesthttp"
)

func init() { guest.Handle(use) }

func main() {}

func use(ctx *guest.Context, event *guest.Event) (any, error) {
	var data struct{ Kind, URL string }
	if err := event.Decode(&data); err != nil {
		return nil, err
	}
	uses := map[string]func(*guest.Context, string) error{
		"http": useHTTP, "client": useClient, "sql": useSQL, "kv": useKV, "blob": useBlob, "rest": useRest, "refused": useRefused,
	}
	return "right", uses[data.Kind](ctx, data.URL)
}

// want returns an error unless both are the same.
func want[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %v; want %v", what, got, want)
	}
	return nil
}

func useHTTP(ctx *guest.Context, _ string) error {
	r, err := ctx.Fetch("api", guest.HTTPRequest{
		Method: "POST", Values: map[string]string{"id": "x y"}, Query: map[string][]string{"limit": {"5"}}, Header: map[string][]string{"Accept": {"text/plain"}}, Body: []byte("grüße"),
	})
	if err != nil {
		return err
	}
	return errors.Join(want("status", r.Status, 201), want("body", string(r.Body), "POST /v1/x%20y limit=5 text/plain grüße"), want("header", r.Get("X-Order"), "o-1"))
}

func useClient(ctx *guest.Context, url string) error {
	c := guesthttp.Client(ctx, "api")
	resp, err := c.Post(url+"/v1/a?limit=2#part", "text/plain", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	_, other := c.Get(url + "/v2/a")
	var refused *guest.GrantError
	if !errors.As(other, &refused) {
		return fmt.Errorf("a URL that the grant does not make: %w", other)
	}
	return errors.Join(want("status", resp.StatusCode, http.StatusCreated), want("body", string(body), "POST /v1/a limit=2  hello"), want("header", resp.Header.Get("X-Order"), "o-1"))
}

func useSQL(ctx *guest.Context, _ string) error {
	db := ctx.SQL("orders")
	if _, err := db.Query("insert", "o-1", 5, []byte{0, 255}); err != nil {
		return err
	}
	both, err := db.Transaction(guest.Statement{Query: "insert", Params: []any{"o-2", 7, nil}}, guest.Statement{Query: "all"})
	if err != nil {
		return err
	}
	var rows []struct {
		ID    string
		Total int
		Note  []byte
	}
	if err := both[1].Decode(&rows); err != nil {
		return err
	}
	if len(rows) != 2 || !bytes.Equal(rows[0].Note, []byte{0, 255}) || rows[1].Note != nil {
		return fmt.Errorf("rows: %v", rows)
	}
	_, err = db.Query("insert", "o-1", 5, nil)
	if err == nil {
		return errors.New("a row was inserted twice")
	}
	return errors.Join(want("changed", both[0].Changed, 1), want("total", rows[1].Total, 7), want("id", rows[0].ID, "o-1"))
}

func useKV(ctx *guest.Context, _ string) error {
	carts := ctx.KV("carts")
	first, err := carts.Set("jané", map[string]int{"book": 1}, time.Hour)
	if err != nil {
		return err
	}
	var cart map[string]int
	there, err := carts.Get("jané", &cart)
	if err != nil {
		return err
	}
	set, now, err := carts.CompareAndSet("jané", first+1000, "other", 0)
	if err != nil {
		return err
	}
	for key, value := range map[string][]byte{"bytes": {0, 1, 255}, "no bytes": {}} {
		if _, err := carts.Set(key, value, 0); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		got := []byte("before")
		if there, err := carts.Get(key, &got); err != nil || !there || !bytes.Equal(got, value) {
			return fmt.Errorf("%s: got %v, %v: %w", key, got, there, err)
		}
	}
	var keys []string
	for k, err := range carts.Keys("b") {
		if err != nil {
			return err
		}
		keys = append(keys, fmt.Sprint(k.Key, k.Size))
	}
	nobody, err := carts.Get("nobody", &cart)
	sum, sumErr := carts.Increment("n", -3, 0)
	kept, keptErr := carts.DeleteVersion("jané", first+1000)
	gone, goneErr := carts.Delete("jané")
	return errors.Join(err, sumErr, keptErr, goneErr, want("there", there, true), want("book", cart["book"], 1), want("set", set, false), want("now", now, first),
		want("keys", strings.Join(keys, " "), "bytes3"), want("nobody", nobody, false), want("sum", sum, -3), want("kept", kept, false), want("gone", gone, true))
}

func useBlob(ctx *guest.Context, _ string) error {
	files := ctx.Blob("files")
	content := bytes.Repeat([]byte("0123456789"), 50_000) // more than one reply holds
	for name, size := range map[string]int{"large": len(content), "small": 7, "empty": 0, "full": 60 << 10} {
		info, err := files.Put(name, bytes.NewReader(content[:size]), guest.BlobOptions{})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		got, err := files.Get(name)
		if err != nil || !bytes.Equal(got, content[:size]) {
			return fmt.Errorf("%s: got %d bytes of %d: %w", name, len(got), size, err)
		}
		again, err := files.Stat(name)
		if err != nil || again.Digest != info.Digest || again.Size != int64(size) {
			return fmt.Errorf("%s: stat is %v: %w", name, again, err)
		}
	}
	r, err := files.Open("large")
	if err != nil {
		return err
	}
	if _, err := files.Put("large", strings.NewReader("other"), guest.BlobOptions{Version: &r.Info.Version}); err != nil {
		return err
	}
	_, changed := io.Copy(io.Discard, r)
	var names []string
	for o, err := range files.List("") {
		if err != nil {
			return err
		}
		names = append(names, o.Name)
	}
	_, failed := files.Put("never", io.MultiReader(bytes.NewReader(content), failing{}), guest.BlobOptions{})
	_, gone := files.Get("never")
	deleted, err := files.Delete("small")
	return errors.Join(err, want("changed", code(changed), "grant.blob_changed"), want("names", fmt.Sprint(slices.Sorted(slices.Values(names))), "[empty full large small]"),
		want("failed", errors.Is(failed, errFailing), true), want("gone", errors.Is(gone, fs.ErrNotExist), true), want("deleted", deleted, true))
}

var errFailing = errors.New("it fails")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errFailing }

// code returns that of an error of a grant.
func code(err error) string {
	if e := (*guest.GrantError)(nil); errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func useRest(ctx *guest.Context, _ string) error {
	secret, err := ctx.Secret("key")
	if err != nil {
		return err
	}
	token, expires, err := ctx.Token("cloud")
	if err != nil {
		return err
	}
	var reply string
	err = ctx.Invoke("itself", map[string]string{"kind": "http"}, &reply)
	return errors.Join(err, want("secret", len(secret), 20), want("token", strings.Count(token, "."), 2), want("expires", expires.After(time.Now()), true), want("reply", reply, "right"))
}

// useRefused returns what a grant refused for good.
func useRefused(ctx *guest.Context, _ string) error {
	_, err := ctx.SQL("orders").Query("drop")
	return err
}
