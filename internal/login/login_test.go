package login_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/internal/login"
	"sallyport/internal/outbound"
	"sallyport/internal/testkit"
)

func open(t *testing.T, is *testkit.Issuer, id string) (*login.Issuer, *http.Client) {
	t.Helper()
	c, err := outbound.New(outbound.Config{RootCAs: is.Roots(), Private: true, Timeout: 10 * time.Second, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	i, err := login.Open(t.Context(), login.Config{Issuer: is.URL, ClientID: id, Scopes: []string{"openid"}}, c)
	if err != nil {
		t.Fatal(err)
	}
	browser := http.DefaultTransport.(*http.Transport).Clone()
	browser.TLSClientConfig.RootCAs = is.Roots()
	t.Cleanup(browser.CloseIdleConnections)
	return i, &http.Client{Transport: browser}
}

// TestBrowser goes the way of a browser, with pages of others that try to answer first.
func TestBrowser(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	i, browser := open(t, is, testkit.ClientID)
	get := func(target string, host string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		resp, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	visited := make(chan struct{})
	got, err := i.Browser(t.Context(), func(page string) {
		go func() {
			defer close(visited)
			u, err := url.Parse(page)
			if err != nil {
				t.Error(err)
				return
			}
			q := u.Query()
			if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) != 43 {
				t.Errorf("the page has no challenge or state: %v", q)
			}
			back, state := q.Get("redirect_uri"), q.Get("state")
			for _, bad := range []string{back, back + "?code=x", back + "?code=x&state=" + state[1:], back + "?code=x&state=a&state=" + state, strings.Replace(back, "callback", "other", 1) + "?code=x&state=" + state} {
				if status, _ := get(bad, ""); status != http.StatusBadRequest {
					t.Errorf("%s: %d; want 400", bad, status)
				}
			}
			if status, _ := get(back+"?code=x&state="+state, "evil.example"); status != http.StatusBadRequest {
				t.Errorf("under another name: %d; want 400", status)
			}
			if status, body := get(page, ""); status != http.StatusOK || !strings.Contains(body, "logged in") {
				t.Errorf("the page ended with %d %s", status, body)
			}
		}()
	})
	<-visited
	if err != nil || strings.Count(got.Token, ".") != 2 || got.Refresh == "" || time.Until(got.Expires) < 4*time.Minute {
		t.Fatalf("Browser = %+v, %v", got, err)
	}
	again, err := i.Refresh(t.Context(), got.Refresh)
	if err != nil || again.Refresh == got.Refresh {
		t.Errorf("Refresh = %+v, %v", again, err)
	}
	if _, err := i.Refresh(t.Context(), got.Refresh); !errors.Is(err, login.ErrEnded) {
		t.Errorf("a refresh token used twice: %v; want ErrEnded", err)
	}
	if err := i.Revoke(t.Context(), again.Refresh); err != nil {
		t.Error(err)
	}
	if _, err := i.Refresh(t.Context(), again.Refresh); !errors.Is(err, login.ErrEnded) {
		t.Errorf("a refresh token that was revoked: %v; want ErrEnded", err)
	}
}

// TestBrowserRefused: the issuer's refusal, an answer of another issuer, and a person who does not come end it.
func TestBrowserRefused(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	i, browser := open(t, is, testkit.ClientID)
	for name, query := range map[string]string{"denied": "error=access_denied%1b[31m", "another issuer": "code=x&iss=https://evil.example", "no code": "x=1", "two codes": "code=a&code=b", "a wrong code": "code=x"} {
		_, err := i.Browser(t.Context(), func(page string) {
			u, err := url.Parse(page)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				resp, err := browser.Get(u.Query().Get("redirect_uri") + "?state=" + u.Query().Get("state") + "&" + query)
				if err == nil {
					_ = resp.Body.Close()
				}
			}()
		})
		if err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := i.Browser(ctx, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, fault := range []testkit.Fault{testkit.FaultDown, testkit.FaultHuge, testkit.FaultRedirect, testkit.FaultMalformed, testkit.FaultTwice, testkit.FaultOther} {
		is := testkit.NewIssuer(t)
		is.Fail(fault)
		c, err := outbound.New(outbound.Config{RootCAs: is.Roots(), Private: true, Timeout: 10 * time.Second, MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := login.Open(t.Context(), login.Config{Issuer: is.URL, ClientID: "x"}, c); err == nil {
			t.Errorf("%s: opened", fault)
		}
		c.Close()
	}
}
