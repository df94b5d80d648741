package secret_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sallyport/internal/ident"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
	"sallyport/internal/secret"
)

// TestCheckText: a text that people write and that holds a value of a secret is refused, whatever version and form; what may be there by accident, or belongs
// there, is not looked for.
func TestCheckText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const first, second = "the-first-value-of-it", "the-second-value-of-it"
	w.set(t, "key", first)
	w.set(t, "key", second+"\n")
	w.set(t, "word", "password")
	w.set(t, "dsn", "postgres://shop:webshop@db.example/orders-of-the-shop")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(strings.Repeat("a certificate", 20))}))
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	w.set(t, "client", cert+private)
	decoy, _, err := w.Plant(t.Context(), shop, "canary", "aws", secret.Setting{By: "user:ann"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 { // several Sets
		w.set(t, ident.SecretName(fmt.Sprint("large-", i)), strings.Repeat(fmt.Sprint("large ", i, " "), 1000))
	}
	for _, tt := range []struct{ name, text, secret string }{
		{"nothing", "name = \"shop\"\nbearer = \"secret:key\"\n", ""},
		{"the current", "name = \"shop\"\nkey = \"" + second + "\"\n", "key"},
		{"one before", "name = \"shop\"\nkey = \"" + first + "\"\n", "key"},
		{"encoded", "name = \"shop\"\n# " + base64.StdEncoding.EncodeToString([]byte("u:"+second)) + "\n", "key"},
		{"a word", "name = \"shop\"\npassword = \"webshop\"\n", ""},
		{"an address", "name = \"shop\"\nx = \"postgres://shop:webshop@db.example/orders-of-the-shop\"\n", "dsn"},
		{"a certificate", "name = \"shop\"\nca = '''\n" + cert + "'''\n", ""},
		{"a key", "name = \"shop\"\n" + strings.Split(private, "\n")[1] + "\n", "client"},
		{"a decoy", "name = \"shop\"\nx = \"" + decoy + "\"\n", ""},
		{"the last of many", "name = \"shop\"\nx = \"" + strings.Repeat("large 29 ", 1000) + "\"\n", "large-29"},
	} {
		err := w.CheckText(t.Context(), shop, "app.toml", []byte(tt.text))
		p, ok := errors.AsType[*problem.Error](err)
		if ok != (tt.secret != "") || ok && (p.Code != "secret.in_manifest" || len(p.Faults) != 1 || p.Faults[0].Line != 2 || !strings.Contains(p.Public, `"`+tt.secret+`"`)) {
			t.Errorf("%s: CheckText = %v %+v; want the secret %q in line 2", tt.name, err, p, tt.secret)
		}
		if ok && strings.Contains(fmt.Sprintf("%+v", p), tt.text[strings.Index(tt.text, "\n")+1:]) {
			t.Errorf("%s: the refusal repeats the line: %+v", tt.name, p)
		}
	}
	said := problem.New(problem.Invalid, "x", "what %s is", second).WithHint("%s", first).WithFaults(problem.Fault{Source: "x = " + private, Detail: "password " + second})
	hidden := fmt.Sprintf("%+v", w.Hide(t.Context(), shop, said))
	for _, v := range []string{first, second, strings.Split(private, "\n")[1]} {
		if strings.Contains(hidden, v) {
			t.Errorf("Hide left %s in %s", v, hidden)
		}
	}
	if !strings.Contains(fmt.Sprint(said), second) {
		t.Error("Hide changed the error that it was given")
	}
	if other := errors.New("unchanged"); !errors.Is(w.Hide(t.Context(), shop, other), other) {
		t.Error("Hide loses an error that it has nothing to do with")
	}
	if got := w.hidden.Cut(first); got != first {
		t.Errorf("the log of the server hides what nobody uses: %s", got)
	}
}

// echoing is a store that answers with what it is asked for.
type echoing struct{}

func (echoing) GetWith(_ context.Context, target string, _ http.Header) (*outbound.Answer, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	text := "value-of-" + u.Path[strings.LastIndexByte(u.Path, '/')+1:] + "-" + u.Query().Get("version")
	return &outbound.Answer{Status: http.StatusOK, Body: []byte(`{"data":{"data":{"f":"` + text + `"}}}`)}, nil
}

func (echoing) PostForm(context.Context, string, url.Values) (*outbound.Answer, error) {
	return nil, errors.New("not asked for")
}

// TestRedactorOfLinks: of a secret in another store each version that was read is hidden, and goes on to be when the secret refers to something else or is gone.
func TestRedactorOfLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outside, err := secret.NewOutside([]secret.Source{{
		Kind: ident.StoreVault, Namespace: shop, URL: "https://vault.example", Prefix: "kv/", Client: echoing{}, Token: func() ([]byte, error) { return []byte("t"), nil },
	}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.outside = outside
	w.start(t)
	link := func(to string) {
		t.Helper()
		if _, err := w.Link(t.Context(), shop, "db", to, secret.Setting{By: "user:ann"}); err != nil {
			t.Fatal(err)
		}
	}
	const all = "value-of-one- value-of-one-3 value-of-two- value-of-two-3 value-of-three-"
	redacted := func() string {
		t.Helper()
		set, err := w.Redactor(t.Context(), shop, []ident.SecretRef{{Store: ident.StoreOwn, Name: "db"}, {Store: ident.StoreOwn, Name: "db", Version: "3"}})
		if err != nil {
			t.Fatal(err)
		}
		out := strings.ReplaceAll(set.Text(all), "value-of-", "")
		return strings.ReplaceAll(out, "[redacted]", "*")
	}
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"linked", func() { link("vault:kv/one#f") }, "one- one-3 two- two-3 three-"},
		{"read", func() { w.value(t, "db@3") }, "one- * two- two-3 three-"},
		{"read both", func() { w.value(t, "db") }, "* * two- two-3 three-"},
		{"linked to another", func() { link("vault:kv/two#f") }, "* * two- two-3 three-"},
		{"read again", func() { w.value(t, "db"); w.value(t, "db@3") }, "* * * * three-"},
		{"destroyed", func() {
			if _, err := w.Destroy(t.Context(), shop, "db", 0); err != nil {
				t.Fatal(err)
			}
		}, "* * * * three-"},
		{"made anew", func() { w.set(t, "db", "value-of-three-") }, "* * * * *"},
	} {
		step.do()
		if got := redacted(); got != step.want {
			t.Errorf("%s: %q; want %q", step.what, got, step.want)
		}
		// The log of the server hides what was read, under whatever it was.
		if got := w.hidden.Cut(all); strings.Contains(step.what, "again") && strings.Contains(got, "one") {
			t.Errorf("%s: the log says %q", step.what, got)
		}
	}
}
