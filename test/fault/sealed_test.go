package fault_test

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// TestSealed is G7: a marker planted in everything a producer can send, and in everything a function
// can say of it, is nowhere in clear in the data folder, in what the server prints, or in the
// answers of refused requests.
func TestSealed(t *testing.T) {
	t.Parallel()
	const marker = "MARKER-7c1f0e5a-secret"
	data := filepath.Join(t.TempDir(), "data")
	s := testkit.Start(t, testkit.Binary(t), data)
	s.Apply(t, &api.Bundle{
		Manifest: `
name = "sealed"
[event_types."sealed.strict"]
schema = "strict.json"
[functions.loud]
source = "loud.js"
[functions.loud.grants.out]
publish = ["sealed.echo"]
[functions.bad]
source = "bad.js"
[subscriptions.loud]
function = "loud"
filter = { type = "sealed.event" }
[subscriptions.bad]
function = "bad"
filter = { type = "sealed.event" }
retry = { attempts = 2, backoff = "10ms" }
`,
		Modules: map[string]api.Module{
			"loud": {Kind: api.ModuleScript, Code: []byte(`export default (event, ctx) => { ctx.log("saw " + event.data.secret); return [{ type: "sealed.echo", data: event.data }] }`)},
			"bad":  {Kind: api.ModuleScript, Code: []byte(`export default (event) => { throw new Error("cannot use " + event.data.secret) }`)},
		},
		Schemas: map[string]string{"strict.json": `{"type":"object","properties":{"n":{"type":"integer"}},"additionalProperties":false}`},
	})
	var refused [][]byte
	send := func(want int, eventType, body string, header ...string) {
		t.Helper()
		a := s.MustDo(t, http.MethodPost, "/v1/namespaces/default/events", []byte(body), append([]string{
			"Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Type", eventType, "Ce-Source", "/test", "Ce-Id", "sealed-" + eventType,
		}, header...)...)
		if a.Status != want {
			t.Fatalf("status = %d, want %d\n%s", a.Status, want, a.Body)
		}
		if want != http.StatusAccepted {
			refused = append(refused, a.Body)
		}
	}
	send(http.StatusAccepted, "sealed.event", `{"secret":"`+marker+`"}`, "Ce-Subject", marker, "Ce-Ext", marker)
	send(http.StatusUnprocessableEntity, "sealed.strict", `{"n":"`+marker+`"}`)
	send(http.StatusBadRequest, "sealed.event", `{"a":1,"a":"`+marker+`"}`)
	send(http.StatusBadRequest, "sealed.event", `{"secret":"`+marker+``)
	if e := s.Event(t, "sealed-sealed.event", "20s"); e.State != api.StateDead {
		t.Fatalf("the event is %s, want dead (one of its functions fails)", e.State)
	}
	if logs := s.MustDo(t, http.MethodGet, "/v1/namespaces/default/logs?function=loud", nil); !bytes.Contains(logs.Body, []byte(marker)) {
		t.Fatalf("the function's own log does not hold what it wrote: the test proves nothing\n%s", logs.Body)
	}
	for _, body := range refused {
		if bytes.Contains(body, []byte(marker)) {
			t.Errorf("a refusal repeats event data: %s", body)
		}
	}
	searchFolder(t, data, marker, 5)
	if _, err := s.Stop(); err != nil {
		t.Fatalf("stop: %v\n%s", err, s.Output())
	}
	searchFolder(t, data, marker, 5)
	if strings.Contains(s.Output(), marker) {
		t.Error("the marker is in what the server printed")
	}
}

// searchFolder fails the test when marker is in any file, and when there are fewer files than least.
func searchFolder(t *testing.T, folder, marker string, least int) {
	t.Helper()
	searched := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			if os.IsNotExist(err) {
				return nil // a running server may remove a temporary file meanwhile
			}
			return err
		}
		searched++
		if bytes.Contains(content, []byte(marker)) {
			t.Errorf("the marker is in clear in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if searched < least {
		t.Fatalf("only %d files searched in %s: the test looks in the wrong place", searched, folder)
	}
}
