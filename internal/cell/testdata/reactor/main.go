// Command reactor is a function that the tests of package cell build for WebAssembly. The data of
// the event says what it does.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	guest "sallyport/sdk/go"
)

func init() { guest.Handle(handle) }

func main() {}

// secret is written by one event; another must not find it.
var secret string

func handle(ctx *guest.Context, event *guest.Event) (any, error) {
	var do struct {
		What string
		Text string
	}
	if event.Binary {
		return map[string]any{"bytes": len(event.Data), "type": event.DataContentType}, nil
	}
	if err := event.Decode(&do); err != nil {
		return nil, guest.Final(err)
	}
	switch do.What {
	case "reply":
		ctx.Infof("attempt %d of %s", ctx.Attempt(), event.ID)
		return map[string]string{"id": event.ID, "source": event.Source, "subject": event.Subject, "text": do.Text}, nil
	case "publish":
		ctx.PublishEvent(guest.Emitted{Type: "test.binary", Subject: "s", DataContentType: "image/png", DataBase64: []byte{1, 2, 3}})
		return nil, ctx.Publish("test.made", do)
	case "fail":
		return nil, errors.New(do.Text)
	case "final":
		return nil, guest.Final(errors.New(do.Text))
	case "later":
		return nil, guest.RetryAfter(errors.New(do.Text), 90*time.Second)
	case "panic":
		panic(do.Text)
	case "exit":
		fmt.Fprintln(os.Stderr, do.Text)
		os.Exit(3)
	case "remember":
		before := secret
		secret = do.Text
		return before, nil
	case "world":
		return world(), nil
	case "grants":
		return grants(ctx)
	case "hoard":
		for { // it begins uses and reads no answer
			ctx.Begin("store", "get", nil, nil)
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "grow":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
		}
	}
	return nil, nil
}

// world lists what can be reached besides the event, which must be nothing.
func world() map[string]any {
	found := map[string]any{"environment": os.Environ(), "arguments": os.Args}
	for _, name := range []string{"/", ".", "/etc/passwd", "/proc/self/environ"} {
		if _, err := os.Stat(name); err == nil {
			found[name] = "exists"
		}
	}
	if err := os.WriteFile("/tmp/planted", []byte("x"), 0o600); err == nil {
		found["write"] = "possible"
	}
	return found
}

// grants uses grants in several ways, and says what came of it.
func grants(ctx *guest.Context) (any, error) {
	one, two := ctx.Begin("store", "a", map[string]int{"n": 1}, []byte("body")), ctx.Begin("store", "b", nil, nil)
	b, err := two.Wait()
	if err != nil {
		return nil, err
	}
	a, err := one.Wait()
	if err != nil {
		return nil, err
	}
	_, failed := ctx.Call("store", "fail", nil, nil)
	_, missing := ctx.Call("of another", "get", nil, nil)
	_, long := ctx.Call("store", string(make([]byte, 1000)), nil, nil)
	said := func(err error) string {
		var e *guest.GrantError
		if !errors.As(err, &e) {
			return fmt.Sprint("no error of a grant: ", err)
		}
		return fmt.Sprint(e.Code, " ", e.Retry)
	}
	return []string{string(a.Value), string(a.Body), string(b.Value), said(failed), said(missing), said(long)}, nil
}
