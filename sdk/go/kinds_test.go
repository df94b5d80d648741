package guest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	guest "sallyport/sdk/go"
	"sallyport/sdk/go/guesthttp"
)

// asked is what a grant was asked, in one line.
func asked(u guest.GrantUse) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", u.Grant, u.Op, u.Request, u.Body))
}

// with runs a handler whose uses are answered in order, each with a JSON value and, behind a space and a bar, a body. It returns what was asked.
func with(t *testing.T, h func(*guest.Context) error, answers ...string) (uses []string, err error) {
	t.Helper()
	out := guest.TestWith(func(ctx *guest.Context, _ *guest.Event) (any, error) { return nil, h(ctx) }, []byte(`{"specversion":"1.0","id":"1","source":"/","type":"t"}`),
		func(u guest.GrantUse) (*guest.Answer, error) {
			uses = append(uses, asked(u))
			if len(answers) == 0 {
				return nil, &guest.GrantError{Code: "test.no_answer", Message: "no answer"}
			}
			value, body, _ := strings.Cut(answers[0], " |")
			answers = answers[1:]
			return &guest.Answer{Value: json.RawMessage(value), Body: []byte(body)}, nil
		})
	return uses, out.Err
}

// TestKinds: what the host is asked by each method, and what comes of its answer.
func TestKinds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		use     func(*guest.Context) error
		answers []string
		want    []string
	}{
		"fetch": {
			func(ctx *guest.Context) error {
				r, err := ctx.Fetch("api", guest.HTTPRequest{Method: "PUT", Values: map[string]string{"id": "1"}, Query: map[string][]string{"a": {"1", "2"}}, Body: []byte("b")})
				if err == nil && (r.Status != 404 || r.Get("X-A") != "1" || string(r.Body) != "no") {
					return fmt.Errorf("%+v", r)
				}
				return err
			},
			[]string{`{"status":404,"headers":[["x-a","1"],["x-a","2"]],"url":"u"} |no`},
			[]string{`api fetch {"method":"PUT","values":{"id":"1"},"query":{"a":["1","2"]}} b`},
		},
		"query": {
			func(ctx *guest.Context) error {
				r, err := ctx.SQL("db").Query("find", "x", []byte{255}, nil, []byte(nil))
				if err == nil && r.Changed != 2 {
					return fmt.Errorf("%+v", r)
				}
				return err
			},
			[]string{`{"rows":[],"changed":2}`},
			[]string{`db query {"query":"find","params":["x",{"$bytes":"/w=="},null,null]}`},
		},
		"no parameters": {
			func(ctx *guest.Context) error {
				_, err := ctx.SQL("db").Transaction(guest.Statement{Query: "all"})
				return err
			},
			[]string{`[{"rows":[],"changed":0}]`},
			[]string{`db transaction {"statements":[{"query":"all","params":[]}]}`},
		},
		"kv": {
			func(ctx *guest.Context) error {
				_, err := ctx.KV("kv").Set("k", nil, 1500*time.Millisecond)
				_, binaryErr := ctx.KV("kv").Set("k", []byte("b"), 0)
				_, _, casErr := ctx.KV("kv").CompareAndSet("k", 0, 1, 0)
				return errors.Join(err, binaryErr, casErr)
			},
			[]string{`{"set":true,"version":1}`, `{"set":true,"version":2}`, `{"set":false,"version":2}`},
			[]string{`kv set {"key":"k","value":null,"ttl":1.5}`, `kv set {"key":"k"} b`, `kv compareAndSet {"key":"k","value":1,"version":0}`},
		},
		"pages": {
			func(ctx *guest.Context) error {
				n := 0
				for _, err := range ctx.KV("kv").Keys("p") {
					if err != nil {
						return err
					}
					n++
				}
				for range ctx.Blob("blob").List("") {
					break
				}
				if n != 3 {
					return fmt.Errorf("%d keys", n)
				}
				return nil
			},
			[]string{`{"keys":[{"key":"pa"},{"key":"pb"}],"after":"pb"}`, `{"keys":[{"key":"pc"}]}`, `{"objects":[{"name":"a"},{"name":"b"}],"after":"b"}`},
			[]string{`kv list {"prefix":"p"}`, `kv list {"prefix":"p","after":"pb"}`, `blob list {}`},
		},
		"secret": {
			func(ctx *guest.Context) error {
				text, err := ctx.Secret("key")
				raw, rawErr := ctx.Secret("key")
				if string(text) != "abc" || !bytes.Equal(raw, []byte{255}) {
					return fmt.Errorf("%q, %q", text, raw)
				}
				return errors.Join(err, rawErr)
			},
			[]string{`{"value":"abc","version":1}`, `{"base64":"/w==","version":1}`},
			[]string{`key value {}`, `key value {}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uses, err := with(t, tc.use, tc.answers...)
			if err != nil {
				t.Error(err)
			}
			if got, want := strings.Join(uses, "\n"), strings.Join(tc.want, "\n"); got != want {
				t.Errorf("asked\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestBlobPutFails: an upload whose content cannot be read is given up, and the error is the reader's.
func TestBlobPutFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	uses, err := with(t, func(ctx *guest.Context) error {
		_, err := ctx.Blob("files").Put("x", io.MultiReader(bytes.NewReader(make([]byte, 100_000)), readErr{broken}), guest.BlobOptions{})
		if !errors.Is(err, broken) {
			return fmt.Errorf("got %w", err)
		}
		if _, err := ctx.Blob("files").Open("x"); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("open: %w", err)
		}
		return nil
	}, `{"upload":"u"}`, `{"size":1}`, `null`, `null`)
	if err != nil || len(uses) != 4 || uses[2] != `files abort {"upload":"u"}` {
		t.Errorf("asked %.100q, %v", uses, err)
	}
}

type readErr struct{ err error }

func (r readErr) Read([]byte) (int, error) { return 0, r.err }

// TestGrantErrorDecides: a handler that returns the error of a grant is tried again when the grant says so, and only then.
func TestGrantErrorDecides(t *testing.T) {
	t.Parallel()
	for _, retry := range []bool{true, false} {
		out := guest.TestWith(func(ctx *guest.Context, _ *guest.Event) (any, error) {
			_, err := ctx.SQL("db").Query("find")
			return nil, fmt.Errorf("find an order: %w", err)
		}, []byte(`{"specversion":"1.0","id":"1","source":"/","type":"t"}`), func(guest.GrantUse) (*guest.Answer, error) {
			return nil, &guest.GrantError{Code: "grant.timeout", Message: "late", Retry: retry}
		})
		if out.Err == nil || out.Final == retry {
			t.Errorf("retry %v: %v, final %v", retry, out.Err, out.Final)
		}
	}
}

// TestClient: a *http.Client sends by the grant, follows what the service says, and has the grant's error.
func TestClient(t *testing.T) {
	t.Parallel()
	uses, err := with(t, func(ctx *guest.Context) error {
		c := guesthttp.Client(ctx, "api")
		resp, err := c.Post("https://api.example.org/v1/a?b=1#c", "text/plain", strings.NewReader("hello"))
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "moved" || resp.StatusCode != http.StatusOK || resp.Header.Get("Etag") != "1" {
			return fmt.Errorf("%v, %s: %w", resp, body, err)
		}
		var failed *guest.GrantError
		if _, err := c.Get("https://api.example.org/v1/x"); !errors.As(err, &failed) || failed.Code != "test.no_answer" {
			return fmt.Errorf("got %w", err)
		}
		return nil
	}, `{"status":303,"headers":[["location","/v1/b"]],"url":""} |`, `{"status":200,"headers":[["etag","1"]],"url":""} |moved`)
	want := `api fetch {"method":"POST","url":"https://api.example.org/v1/a?b=1","headers":{"Content-Type":["text/plain"]}} hello
api fetch {"method":"GET","url":"https://api.example.org/v1/b"}
api fetch {"method":"GET","url":"https://api.example.org/v1/x"}`
	if got := strings.Join(uses, "\n"); err != nil || got != want {
		t.Errorf("asked\n%s\nwant\n%s\n%v", got, want, err)
	}
}
