package httpapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/httpapi"
)

func line(n int64, text string) api.LogLine {
	return api.LogLine{Time: time.Unix(n, 0).UTC(), Function: "price", EventID: "e-1", Level: "info", Message: text}
}

// follow begins to follow the logs; done is closed when the stream has ended.
func follow(w *world, token, query string) (*httptest.ResponseRecorder, chan struct{}) {
	rec, done := httptest.NewRecorder(), make(chan struct{})
	r := httptest.NewRequest("GET", shop+"/logs?follow=true"+query, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	go func() {
		defer close(done)
		w.ServeHTTP(rec, r)
	}()
	return rec, done
}

func TestLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.spaces["shop"].lines = append(w.spaces["shop"].lines, line(200, "not UTF-8: \xff, and\na break"))
	rec := w.do("GET", shop+"/logs", "")
	if rec.Code != 200 || rec.Header().Get("Content-Type") != "application/x-ndjson" || strings.Count(rec.Body.String(), "\n") != 2 || !strings.Contains(rec.Body.String(), "not UTF-8: \ufffd") {
		t.Errorf("logs = %d %v\n%s", rec.Code, rec.Header(), rec.Body)
	}
	for query, lines := range map[string]int{"limit=1": 1, "function=other": 0, "event=e-1": 2, "since=1970-01-01T00:03:00Z": 1, "follow=false": 2} {
		if rec := w.do("GET", shop+"/logs?"+query, ""); rec.Code != 200 || strings.Count(rec.Body.String(), "\n") != lines {
			t.Errorf("%s: %d\n%swant %d lines", query, rec.Code, rec.Body, lines)
		}
	}
	for _, query := range []string{"limit=0", "function=No", "since=x", "follow=1", "tail=5"} {
		wantProblem(t, w.do("GET", shop+"/logs?"+query, ""), 400, "httpapi.bad_request")
	}
	w.spaces["shop"].full = true
	wantProblem(t, w.do("GET", shop+"/logs?follow=true", ""), 429, "httpapi.too_many_waiting")
	if !w.Idle() {
		t.Error("something is still counted")
	}
}

// TestFollow: lines come once each and as they are written, and only those asked for.
func TestFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.spaces["shop"]
		rec, done := follow(w, w.tokens["reader"], "&event=e-1")
		synctest.Wait()
		if !rec.Flushed || rec.Body.String() == "" {
			t.Error("the past is not there at once")
		}
		s.say(s.lines[0]) // came between following and reading: it is in the past already
		other := line(3, "other event")
		other.EventID = "e-2"
		s.say(other)
		s.say(line(4, "two"))
		s.say(line(4, "two")) // twice is twice
		time.Sleep(time.Minute)
		w.Drain()
		<-done
		var got []string
		for l := range strings.Lines(rec.Body.String()) {
			got = append(got, l[strings.LastIndex(l, ":")+1:])
		}
		if want := "\"shop one\"}\n\"two\"}\n\"two\"}\n"; strings.Join(got, "") != want {
			t.Errorf("lines = %q, want %q", got, want)
		}
		if len(s.followers) > 0 || !w.Idle() {
			t.Error("something is still counted")
		}
	})
}

// TestFollowEnds with its token, which is revoked or expires, and with the logs.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"revoked", "expired", "closed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				tok, err := w.guard.Create(t.Context(), "test", api.TokenRequest{Role: "reader", Namespace: "shop", ExpiresIn: "1h"})
				if err != nil {
					t.Fatal(err)
				}
				rec, done := follow(w, tok.Text, "")
				synctest.Wait()
				began, most := time.Now(), httpapi.RecheckEvery
				switch how {
				case "revoked":
					if err := w.guard.Revoke(t.Context(), tok.ID); err != nil {
						t.Fatal(err)
					}
				case "expired":
					most += time.Hour
				case "closed":
					most = 0
					close(w.spaces["shop"].followers[0])
				}
				<-done
				if took := time.Since(began); took > most {
					t.Errorf("the stream ended after %s, want at most %s", took, most)
				}
				if rec.Code != 200 || !w.Idle() {
					t.Errorf("status %d, idle %v", rec.Code, w.Idle())
				}
			})
		})
	}
}
