package fault_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// keyService is a service that accepts the last keys it was given, as a payment service does: one is the key in force, one that before it, and one
// may be about to come.
type keyService struct {
	*httptest.Server
	mu      sync.Mutex
	keys    []string // all that were installed, the newest last
	refused []string
	// strike is called once, by the request whose path and moment it names.
	path   string
	after  bool
	strike func()
}

const acceptedKeys = 3

func newKeyService(t *testing.T, first string) *keyService {
	t.Helper()
	s := &keyService{keys: []string{first}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// strikeAt has f called by the next request to a path, before or after it is served.
func (s *keyService) strikeAt(path string, after bool, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.path, s.after, s.strike = path, after, f
}

func (s *keyService) struck(path string, after bool) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strike == nil || s.path != path || s.after != after {
		return func() {}
	}
	f := s.strike
	s.strike = nil
	return f
}

// ServeHTTP implements http.Handler: /install takes the key that it is asked with for one of its own, and anything else wants such a key.
func (s *keyService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.struck(r.URL.Path, false)()
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	if r.URL.Path == "/install" && !slices.Contains(s.keys, key) {
		s.keys = append(s.keys, key)
	}
	ok := slices.Contains(s.keys[max(0, len(s.keys)-acceptedKeys):], key)
	if !ok {
		s.refused = append(s.refused, fmt.Sprintf("%s %s with key %d of %d", r.Method, r.URL.Path, slices.Index(s.keys, key), len(s.keys)))
	}
	s.mu.Unlock()
	switch {
	case !ok:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/create":
		_, _ = w.Write(randomOf(letters, 40))
	}
	s.struck(r.URL.Path, true)()
}

const rotationApp = `
name = "rotation"
[functions.worker]
source = "worker.js"
[functions.worker.grants]
pay = { http = "%[1]s/pay", private = ["127.0.0.1"], auth = { bearer = "secret:key" } }
[functions.rotator]
source = "rotator.js"
[functions.rotator.grants]
install = { http = "%[1]s/install", methods = ["POST"], private = ["127.0.0.1"], auth = { bearer = "secret:key@pending" } }
create  = { http = "%[1]s/create", methods = ["POST"], private = ["127.0.0.1"], auth = { bearer = "secret:key" } }
attempt = { http = "%[1]s/attempt", private = ["127.0.0.1"], auth = { bearer = "secret:key@pending" } }
`

const rotatorScript = `export default async (event, ctx) => {
	const use = { create: ctx.grants.create, set: ctx.grants.install, test: ctx.grants.attempt }[event.data.step];
	const r = await use.fetch({});
	if (r.status !== 200) throw new Error("the step " + event.data.step + " got " + r.status);
	if (event.data.step === "create") return { value: await r.text() };
}`

const workerScript = `export default async (event, ctx) => (await ctx.grants.pay.fetch({})).status`

// rotationWorld is a server whose secret is rotated while it is killed, and those who need the secret all the time.
type rotationWorld struct {
	t       *testing.T
	binary  string
	data    string
	service *keyService

	mu     sync.Mutex
	server *testkit.Server
	served int
	wrong  []string
}

func (w *rotationWorld) now() *testkit.Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.server
}

// work calls the function that needs the secret until ctx ends. That the server is killed meanwhile is no fault, and neither is that it is not there yet.
func (w *rotationWorld) work(ctx context.Context) {
	for ctx.Err() == nil {
		a, err := w.now().Do(ctx, http.MethodPost, "/v1/namespaces/default/functions/worker/invoke", []byte(`{}`), "Content-Type", "application/json")
		w.mu.Lock()
		switch {
		case err != nil || a.Status == http.StatusServiceUnavailable:
		case a.Status == http.StatusOK && strings.TrimSpace(string(a.Body)) == "200":
			w.served++
		default:
			w.wrong = append(w.wrong, fmt.Sprintf("%d %s", a.Status, a.Body))
		}
		w.mu.Unlock()
	}
}

func (w *rotationWorld) secret() (s api.Secret) {
	w.t.Helper()
	w.now().MustDo(w.t, http.MethodGet, "/v1/namespaces/default/secrets/key", nil).Decode(w.t, http.StatusOK, &s)
	return s
}

// rotated waits until no rotation is under way, and returns the secret.
func (w *rotationWorld) rotated() api.Secret {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); ; <-tick.C {
		s := w.secret()
		if s.Rotation.Step == "" {
			return s
		}
		if time.Now().After(end) {
			w.t.Fatalf("the rotation stands at %q and does not end\n%s", s.Rotation.Step, w.now().Output())
		}
	}
}

// rotate begins a rotation, kills the server by f, which is given what kills it and returns when it is dead, and starts it again.
func (w *rotationWorld) rotate(when string, f func(kill func())) api.Secret {
	w.t.Helper()
	server := w.now()
	dead := make(chan struct{})
	kill := sync.OnceFunc(func() {
		server.Kill()
		close(dead)
	})
	f(kill)
	a, err := server.Do(w.t.Context(), http.MethodPost, "/v1/namespaces/default/secrets/key/rotate", []byte(`{"function":"rotator","grace":"1h","now":true}`), "Content-Type", "application/json")
	if err == nil && a.Status != http.StatusOK {
		w.t.Fatalf("%s: rotate: %d %s", when, a.Status, a.Body)
	}
	select {
	case <-dead:
	case <-time.After(time.Minute):
		w.t.Fatalf("%s: nothing killed the server\n%s", when, server.Output())
	}
	next := testkit.Start(w.t, w.binary, w.data)
	w.mu.Lock()
	w.server = next
	w.mu.Unlock()
	return w.rotated()
}

// newRotationWorld starts a server with the app and the first key, and two who need it until stop is called.
func newRotationWorld(t *testing.T) (w *rotationWorld, stop func()) {
	t.Helper()
	const first = "the-first-key-0123456789"
	w = &rotationWorld{t: t, binary: testkit.Binary(t), data: filepath.Join(t.TempDir(), "data"), service: newKeyService(t, first)}
	w.server = testkit.Start(t, w.binary, w.data)
	w.server.MustDo(t, http.MethodPost, "/v1/namespaces/default/secrets/key/versions", []byte(first), "Content-Type", "application/octet-stream")
	w.server.Apply(t, &api.Bundle{Manifest: fmt.Sprintf(rotationApp, w.service.URL), Modules: map[string]api.Module{
		"worker":  {Kind: api.ModuleScript, Code: []byte(workerScript)},
		"rotator": {Kind: api.ModuleScript, Code: []byte(rotatorScript)},
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() { w.work(ctx) })
	}
	stop = sync.OnceFunc(func() {
		cancel()
		workers.Wait()
	})
	t.Cleanup(stop)
	return w, stop
}

// ends checks that nothing went wrong for those who needed the secret, and that no key is on the disk.
func (w *rotationWorld) ends() {
	w.t.Helper()
	if len(w.wrong) > 0 || len(w.service.refused) > 0 || w.served == 0 {
		w.t.Errorf("%d calls were served, the service refused %q, and these failed: %q", w.served, w.service.refused, w.wrong)
	}
	w.now().Kill()
	for _, key := range w.service.keys {
		searchFolder(w.t, w.data, key, 5)
	}
}

// TestRotationOnScheduleAcrossKills has the schedule begin a rotation, whose every step is killed before and after it is served, so each is tried three times; the
// version that comes into force is one that the service takes.
func TestRotationOnScheduleAcrossKills(t *testing.T) {
	t.Parallel()
	w, stop := newRotationWorld(t)
	a := w.now().MustDo(t, http.MethodPost, "/v1/namespaces/default/secrets/key/rotate", []byte(`{"function":"rotator","creates":true,"grace":"1h","every":"1m"}`), "Content-Type", "application/json")
	if a.Status != http.StatusOK {
		t.Fatalf("plan: %d %s", a.Status, a.Body)
	}
	for _, path := range []string{"/create", "/install", "/attempt"} {
		for _, after := range []bool{false, true} {
			server, dead := w.now(), make(chan struct{})
			w.service.strikeAt(path, after, func() {
				server.Kill()
				close(dead)
			})
			select {
			case <-dead:
			case <-time.After(5 * time.Minute):
				t.Fatalf("%s, served %v: nothing killed the server\n%s", path, after, server.Output())
			}
			next := testkit.Start(t, w.binary, w.data)
			w.mu.Lock()
			w.server = next
			w.mu.Unlock()
			if s := w.secret(); s.Current == 1 && s.Rotation.Step == "" && s.Rotation.Started != nil {
				t.Fatalf("%s, served %v: the rotation is over: %+v", path, after, s.Rotation)
			}
		}
	}
	s := w.rotated()
	if s.Current != 2 || s.Pending != 0 || s.Rotation.Error != "" {
		t.Errorf("after all: %+v, %+v", s, s.Rotation)
	}
	w.versions("after all", s.Current)
	stop()
	w.ends()
	t.Logf("%d calls served", w.served)
}

// TestRotationAcrossKills is that a secret is rotated while the server is killed at every step and at any moment: no call that needs it fails for it,
// exactly one version is in force, which the service accepts, none is left behind half-made, and no value is on the disk in clear.
func TestRotationAcrossKills(t *testing.T) {
	t.Parallel()
	rng := random(t)
	w, stop := newRotationWorld(t)
	type moment struct {
		when string
		f    func(kill func())
	}
	var moments []moment
	for _, path := range []string{"/install", "/attempt"} {
		for _, after := range []bool{false, true} {
			moments = append(moments, moment{fmt.Sprintf("killed at %s, served: %v", path, after), func(kill func()) { w.service.strikeAt(path, after, kill) }})
		}
	}
	for range 6 {
		wait := time.Duration(rng.Int64N(int64(60 * time.Millisecond)))
		moments = append(moments, moment{fmt.Sprintf("killed after %s", wait), func(kill func()) { time.AfterFunc(wait, kill) }})
	}
	current, rotations := 1, 0
	for _, m := range moments {
		s := w.rotate(m.when, m.f)
		switch {
		case s.Pending != 0:
			t.Errorf("%s: the version %d is left pending", m.when, s.Pending)
		case s.Rotation.Error != "":
			t.Errorf("%s: the rotation failed: %s", m.when, s.Rotation.Error)
		case s.Current > current:
			rotations++
		case s.Current < current || s.Rotation.Started != nil && s.Rotation.Ended == nil:
			t.Errorf("%s: version %d is in force after %d, and the rotation is %+v", m.when, s.Current, current, s.Rotation)
		}
		current = s.Current
		w.versions(m.when, current)
	}
	if rotations < 4 { // those that were killed at a step were begun for certain
		t.Errorf("%d rotations came to their end", rotations)
	}
	// The service takes no more of the first key by now: what works, works with a new one.
	a := w.now().MustDo(t, http.MethodPost, "/v1/namespaces/default/functions/worker/invoke", []byte(`{}`), "Content-Type", "application/json")
	if strings.TrimSpace(string(a.Body)) != "200" {
		t.Errorf("after all: %d %s", a.Status, a.Body)
	}
	stop()
	w.ends()
	t.Logf("%d rotations, %d calls served", rotations, w.served)
}

// versions checks that one version is in force and none pending.
func (w *rotationWorld) versions(when string, current int) {
	w.t.Helper()
	var list api.SecretVersionList
	w.now().MustDo(w.t, http.MethodGet, "/v1/namespaces/default/secrets/key/versions", nil).Decode(w.t, http.StatusOK, &list)
	for _, v := range list.Versions {
		if (v.State == "current") != (v.Version == current) || v.State == "pending" {
			text, err := json.Marshal(list)
			w.t.Errorf("%s: version %d is in force, and the versions are %s, %v", when, current, text, err)
			return
		}
	}
}
