package fault_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// plantedSecret is a secret, and the random parts of it, each of which must not be found in any encoding.
type plantedSecret struct {
	name, use, shape string
	value            []byte
	cores            [][]byte
}

// plantedUses are the ways in which a secret is used: in turn.
var plantedUses = [...]string{"bearer", "basic", "header", "query", "hmac", "aws", "oauth2", "mtls", "sql", "secret"}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	symbols = `!"#$%&'()*+,-./:;<=>?@[\]^_{|}~` + letters
	base64s = letters + "+/"
)

// plantedShapes make values with a random core.
var plantedShapes = []struct {
	name string
	make func() (value, core []byte)
}{
	{"short token", func() (v, core []byte) { core = randomOf(letters, 10); return core, core }},
	{"long key", func() (v, core []byte) { core = randomOf(letters, 2000); return core, core }},
	{"special characters", func() (v, core []byte) { core = randomOf(symbols, 24); return core, core }},
	{"base64", func() (v, core []byte) { core = randomOf(base64s, 42); return append(bytes.Clone(core), "=="...), core }},
	{"hex", func() (v, core []byte) { core = randomOf("0123456789abcdef", 64); return core, core }},
	{"binary", func() (v, core []byte) { core = randomOf("", 32); return core, core }},
	{"JSON", func() (v, core []byte) {
		core = randomOf(letters, 30)
		return []byte(`{"key":"` + string(core) + `","n":1}`), core
	}},
	{"several lines", func() (v, core []byte) {
		core = randomOf(letters, 40)
		return []byte("# comment\nkey=" + string(core) + "\n"), core
	}},
	{"token with a prefix", func() (v, core []byte) { core = randomOf(letters, 36); return append([]byte("ghp_"), core...), core }},
	{"not ASCII", func() (v, core []byte) { core = randomOf(letters, 12); return []byte("päss→" + string(core)), core }},
}

// randomOf returns so many characters of an alphabet, of all bytes when it is empty.
func randomOf(alphabet string, n int) []byte {
	out := make([]byte, n)
	_, _ = rand.Read(out) // never fails
	for i := range out {
		if alphabet != "" {
			out[i] = alphabet[int(out[i])%len(alphabet)]
		}
	}
	return out
}

func newPlantedSecret(t *testing.T, i int, database string) plantedSecret {
	t.Helper()
	shape := plantedShapes[i/len(plantedUses)%len(plantedShapes)]
	s := plantedSecret{name: fmt.Sprintf("s%03d", i), use: plantedUses[i%len(plantedUses)], shape: shape.name}
	var core []byte
	s.value, core = shape.make()
	s.cores = [][]byte{core}
	switch s.use {
	case "mtls":
		s.shape = "PEM"
		s.value, s.cores = newCertificate(t)
	case "sql":
		s.shape = "DSN, " + shape.name
		s.value = fmt.Appendf(nil, "postgres://user%d:%s@%s/%s?sslmode=disable", i, url.QueryEscape(string(s.value)), database, []string{"login", "statement", "row"}[i/10%3])
		s.value = bytes.ReplaceAll(s.value, []byte("+"), []byte("%20"))
	}
	return s
}

// newCertificate returns a certificate with its key, in PEM, and parts of the key.
func newCertificate(t *testing.T) (both []byte, cores [][]byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "planted"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	at := bytes.Index(der, secret)
	if at < 0 {
		t.Fatal("the key is not in its own encoding")
	}
	encoded := base64.StdEncoding.EncodeToString(der)
	// The number itself, and the part of the text that stands for it.
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), text...), [][]byte{secret, []byte(encoded[(at+2)/3*4 : 64])}
}

// echo answers with all that it was sent, as it is and encoded, in several ways.
func (w *planted) echo(rw http.ResponseWriter, r *http.Request) {
	number, how, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	index, err := strconv.Atoi(number)
	if err != nil || index >= len(w.secrets) {
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	given := []string{r.Header.Get("X-Api-Key"), r.URL.Query().Get("key"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.Header.Get("X-Signature")}
	if user, password, ok := r.BasicAuth(); ok {
		if plain, err := url.QueryUnescape(password); err == nil && w.secrets[index].use == "oauth2" {
			password = plain
		}
		given = append(given, password, user)
	}
	w.note(index, given...)
	if how == "token" {
		// The token is the client's secret, and so is what is wrong with it.
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(map[string]any{"access_token": given[4], "token_type": "Bearer", "error_description": given[4]})
		return
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		w.arrived(index)
	}
	var body strings.Builder
	fmt.Fprintf(&body, "%s %s %q %q\n", r.Method, r.RequestURI, r.Header, given)
	for _, v := range given {
		if v == "" {
			continue
		}
		for _, form := range formsOf([]byte(v)) {
			fmt.Fprintf(&body, "%s\n", form)
		}
		fmt.Fprintf(&body, "<p>%s</p>\n", html.EscapeString(v))
		for _, name := range []string{"X-Echo", "Etag", "Www-Authenticate", "Set-Cookie"} {
			if !strings.ContainsAny(v, "\r\n") {
				rw.Header().Add(name, v)
			}
		}
	}
	switch how {
	case "error":
		rw.WriteHeader(http.StatusInternalServerError)
	case "redirect":
		rw.Header().Set("Location", "/"+url.PathEscape(given[2])+"?"+r.URL.RawQuery)
		rw.WriteHeader(http.StatusFound)
	case "broken":
		conn, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }() // to be cut off is what it is for
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\n%s\r\n\r\n", strings.Join(given, " "), body.String())
		return
	}
	_, _ = io.WriteString(rw, body.String())
}

// note notes that a secret was sent, if it was.
func (w *planted) note(i int, given ...string) {
	for _, v := range given {
		if strings.Contains(v, string(w.secrets[i].cores[0])) {
			w.arrived(i)
		}
	}
}

// startDatabase starts what speaks as much of PostgreSQL's protocol as is wanted to be told a password, and to tell it.
func (w *planted) startDatabase(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.sql = listener
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				w.database(conn)
			}()
		}
	}()
}

// pgMessage is a message of the protocol.
func pgMessage(kind byte, body ...string) []byte {
	text := strings.Join(body, "")
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(text))), text...)
}

// database serves a connection: what it answers is told by the name of the database.
func (w *planted) database(conn net.Conn) {
	in := bufio.NewReader(conn)
	var head [4]byte
	next := func() ([]byte, bool) {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return nil, false
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
		_, err := io.ReadFull(in, body)
		return body, err == nil
	}
	start, ok := next()
	if !ok {
		return
	}
	_, _ = conn.Write(pgMessage('R', "\x00\x00\x00\x03")) // a password in clear, please
	if _, err := in.ReadByte(); err != nil {
		return
	}
	text, ok := next()
	if !ok {
		return
	}
	password := strings.TrimRight(string(text), "\x00")
	if _, user, ok := strings.Cut(string(start), "user\x00user"); ok {
		user, _, _ = strings.Cut(user, "\x00")
		if i, err := strconv.Atoi(user); err == nil && i < len(w.secrets) {
			w.note(i, password)
		}
	}
	refusal := func(code string) []byte {
		return pgMessage('E', "SFATAL\x00C"+code+"\x00M"+password+"\x00D"+password+"\x00H"+password+"\x00n"+password+"\x00t"+password+"\x00\x00")
	}
	if bytes.Contains(start, []byte("\x00login\x00")) {
		_, _ = conn.Write(refusal("28P01"))
		return
	}
	_, _ = conn.Write(append(pgMessage('R', "\x00\x00\x00\x00"), pgMessage('Z', "I")...))
	column := pgMessage('T', "\x00\x01v\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00")
	for {
		kind, err := in.ReadByte()
		if err != nil {
			return
		}
		if _, ok := next(); !ok {
			return
		}
		var answer []byte
		switch {
		case kind == 'P' && !w.lenient.Load() && bytes.Contains(start, []byte("\x00statement\x00")):
			answer = refusal("42601")
		case kind == 'P':
			answer = pgMessage('1')
		case kind == 'D':
			answer = append(pgMessage('t', "\x00\x01\x00\x00\x00\x19"), column...)
		case kind == 'B':
			answer = pgMessage('2')
		case kind == 'E':
			size := binary.BigEndian.AppendUint32(nil, uint32(len(password)))
			answer = append(pgMessage('D', "\x00\x01", string(size), password), pgMessage('C', "SELECT 1\x00")...)
		case kind == 'S':
			answer = pgMessage('Z', "I")
		case kind == 'X':
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// formsOf returns what a value looks like in the encodings that it must not be found in. Within a longer text in base64 a value is at one of three
// places, and its first and last character tell of its neighbours too: those are left out.
func formsOf(v []byte) [][]byte {
	out := [][]byte{v}
	for shift := range 3 {
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			text := enc.EncodeToString(append(make([]byte, shift), v...))
			out = append(out, []byte(text[(shift*8+5)/6:(shift+len(v))*8/6]))
		}
	}
	small := hex.EncodeToString(v)
	out = append(out, []byte(small), []byte(strings.ToUpper(small)), []byte(url.QueryEscape(string(v))), []byte(url.PathEscape(string(v))))
	if quoted, err := json.Marshal(string(v)); err == nil {
		out = append(out, quoted[1:len(quoted)-1])
	}
	return out
}

// finder looks for all secrets at once: for the first bytes of each form, of which there are enough to be no accident.
type finder struct {
	forms int
	known map[[finderBytes]byte][]sought
	maybe [1 << 20]bool // by a hash of those bytes: most places end here
}

// sought is a part of a secret, of at most soughtBytes: enough to be no accident in any encoding.
type sought struct{ part, secret string }

const (
	finderBytes = 8
	soughtBytes = 24
)

func newFinder(t *testing.T, secrets []plantedSecret) *finder {
	t.Helper()
	f := &finder{known: map[[finderBytes]byte][]sought{}}
	for _, s := range secrets {
		for _, core := range s.cores {
			for _, form := range formsOf(core) {
				if len(form) < finderBytes {
					t.Fatalf("the core of a secret (%s) is too short", s.shape)
				}
				f.forms++
				f.add(form[:min(len(form), soughtBytes)], s)
				f.add(form[max(0, len(form)-soughtBytes):], s)
			}
			if !f.found(formsOf(core)[0]) {
				t.Fatalf("the finder does not find %s", s.name)
			}
		}
	}
	return f
}

func (f *finder) add(part []byte, s plantedSecret) {
	key := [finderBytes]byte(part)
	f.known[key] = append(f.known[key], sought{string(part), s.name + ", " + s.use + ", " + s.shape})
	f.maybe[finderHash(part)] = true
}

func finderHash(b []byte) uint64 { return binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15 >> 44 }

func (f *finder) found(text []byte) bool { return f.first(text, func(int, string) {}) > 0 }

// first calls report for each place where a part of a secret is, and returns how many there are.
func (f *finder) first(text []byte, report func(at int, what string)) (n int) {
	for i := 0; i+finderBytes <= len(text); i++ {
		part := text[i : i+finderBytes]
		if !f.maybe[finderHash(part)] {
			continue
		}
		for _, k := range f.known[[finderBytes]byte(part)] {
			if strings.HasPrefix(string(text[i:min(len(text), i+soughtBytes)]), k.part) {
				n++
				report(i, k.secret)
			}
		}
	}
	return n
}

// look fails the test when a secret is in a text.
func (f *finder) look(t *testing.T, name string, text []byte) {
	t.Helper()
	const most = 5
	n := 0
	total := f.first(text, func(at int, what string) {
		if n++; n <= most {
			t.Errorf("%s holds the secret %s, at %d: …%q…", name, what, at, text[max(0, at-80):min(len(text), at+40)])
		}
	})
	if total > most {
		t.Errorf("%s: %d more", name, total-most)
	}
}
