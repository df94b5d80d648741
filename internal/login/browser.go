package login

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	callbackPath = "/callback"
	// callbackTimeout bounds each phase of the one request that comes back.
	callbackTimeout = 5 * time.Second
	maxCallback     = 16 << 10 // bytes of headers, the URL among them
	maxCode         = 4 << 10  // bytes
)

// callback is what came back to the loopback address.
type callback struct {
	code string
	err  error
}

// Browser gets a token by a page that the person opens; show tells them its address.
func (i *Issuer) Browser(ctx context.Context, show func(url string)) (*Tokens, error) {
	page, err := url.Parse(i.endpoints.Authorization)
	if err != nil || page.Scheme != "https" || page.Host == "" {
		return nil, errors.New("the issuer has no page to log in")
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the browser: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	state, verifier := secret(), secret()
	redirect := "http://" + listener.Addr().String() + callbackPath
	query := i.scoped(map[string]string{
		"response_type": "code", "redirect_uri": redirect, "state": state, "code_challenge": challenge(verifier), "code_challenge_method": "S256",
	})
	for k, v := range page.Query() {
		query[k] = v
	}
	page.RawQuery = query.Encode()
	code, err := i.await(ctx, listener, state, func() { show(page.String()) })
	if err != nil {
		return nil, err
	}
	return i.token(ctx, i.form(map[string]string{
		"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier,
	}))
}

// await serves the loopback address until the browser comes back to it with the state that was sent out.
func (i *Issuer) await(ctx context.Context, listener net.Listener, state string, ready func()) (string, error) {
	back := make(chan callback, 1)
	srv := &http.Server{
		Handler: i.receiver(listener.Addr().String(), state, back), ReadTimeout: callbackTimeout, WriteTimeout: callbackTimeout, MaxHeaderBytes: maxCallback,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(listener) }()
	ready()
	var got callback
	select {
	case got = <-back:
	case <-ctx.Done():
		got.err = ctx.Err()
	case err := <-ended:
		return "", fmt.Errorf("listen for the browser: %w", err)
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), callbackTimeout)
	defer cancel()
	_ = srv.Shutdown(grace) // the answer is out, or the browser does not read it
	<-ended
	return got.code, got.err
}

// receiver takes the one request that belongs to this log-in, and refuses every other. A page in the browser can send requests
// here too: they lack the state, and under another name they lack the host.
func (i *Issuer) receiver(host, state string, back chan<- callback) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		q := r.URL.Query()
		switch {
		case r.Method != http.MethodGet || r.URL.Path != callbackPath || r.Host != host,
			len(q["state"]) != 1 || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1:
			http.Error(w, "this is not the answer to a log-in", http.StatusBadRequest)
			return
		}
		var got callback
		switch iss := q["iss"]; {
		case len(iss) > 1 || len(iss) == 1 && iss[0] != i.cfg.Issuer, len(iss) == 0 && i.endpoints.NamesItself:
			got.err = errors.New("the answer came from another issuer")
		case q.Get("error") != "":
			got.err = refusal(q.Get("error"))
		case len(q["code"]) != 1 || q.Get("code") == "" || len(q.Get("code")) > maxCode:
			got.err = errors.New("the answer has no code")
		default:
			got.code = q.Get("code")
		}
		select {
		case back <- got:
		default: // it was answered already
		}
		text := "You are logged in; close this page.\n"
		if got.err != nil {
			text = "The log-in failed; the command line says why.\n"
		}
		_, _ = w.Write([]byte(text)) // the browser may be gone
	})
}
