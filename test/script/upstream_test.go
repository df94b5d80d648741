package script_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// upstream starts a service that answers with what it was asked, and writes a line for each request into LOG. Its URL, http
// without TLS, takes the place of UPSTREAM in the files that are named.
func (s *session) upstream(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: upstream LOG FILE…")
	}
	log, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	var mu sync.Mutex
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return
		}
		mu.Lock()
		fmt.Fprintf(log, "%s %s %q %q\n", r.Method, r.RequestURI, r.Header, body)
		mu.Unlock()
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.Header.Get("Authorization"), body)
	}))
	ts.Defer(func() {
		service.Close()
		ts.Check(log.Close())
	})
	for _, name := range args[1:] {
		text := ts.ReadFile(name)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(strings.ReplaceAll(text, "UPSTREAM", service.URL)), 0o600))
	}
}
