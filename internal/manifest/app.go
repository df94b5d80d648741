// Package manifest reads the two texts that people write: app.toml and server.toml.
//
// Reading is strict: an unknown or misspelt key, a value out of range and a name that nothing has
// are faults, each with file, line, column and the line itself, and all of them are reported at
// once. It is pure: what a manifest names (sources, schemas) is read by others. Callers: bundle and
// deploy (ParseApp), cli and server (ParseServer).
package manifest

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"sallyport/internal/filter"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// App is the content of an app.toml.
type App struct {
	Name          ident.AppName
	EventTypes    map[ident.EventType]EventType
	Functions     map[ident.FunctionName]Function
	Subscriptions map[ident.SubscriptionName]Subscription
}

// EventType is what an app says of an event type. Schema is a path inside the app's folder, or "".
type EventType struct{ Schema string }

// Function is one function of an app. Source is a path inside the app's folder.
type Function struct {
	Source  string
	Memory  int64 // bytes
	Timeout time.Duration
	// MinInstances is how many instances wait for events however long none comes.
	MinInstances int
	Limits       Limits
	Grants       map[string]Grant
}

// Limits bound one invocation besides its memory and its time.
type Limits struct {
	// CPU is the most processor time; 0 is as much as the timeout allows.
	CPU time.Duration
	// Output is the longest result, in bytes, and Log the most log, in bytes.
	Output, Log int64
	// Events is how many events it may publish, and HostCalls how often it may call the host.
	Events, HostCalls int
}

// Subscription hands the events that its filter and its condition select to a function.
type Subscription struct {
	Function ident.FunctionName
	Filter   filter.Filter
	When     string
	Retry    Retry
}

// Retry bounds the attempts at a delivery: at most Attempts, the n-th at least Backoff·2^(n-2)
// (with jitter, at most MaxBackoff) after the one before, none after MaxAge since acceptance.
type Retry struct {
	Attempts                    int
	Backoff, MaxBackoff, MaxAge time.Duration
}

// Limits of what an app may ask for, and what it gets when it does not ask.
const (
	MinMemory, MaxMemory, DefaultMemory = 1 << 20, 512 << 20, 64 << 20 // bytes
	MinTimeout                          = time.Millisecond
	MaxTimeout                          = 5 * time.Minute
	DefaultTimeout                      = 10 * time.Second
	MinOutput, MaxOutput, DefaultOutput = 1, 8 << 20, 1 << 20 // bytes
	MaxLog, DefaultLog                  = 1 << 20, 64 << 10   // bytes
	MaxEvents, DefaultEvents            = 1000, 100           // of one invocation
	MaxHostCalls, DefaultHostCalls      = 1_000_000, 100_000  // of one invocation
	MaxMinInstances                     = 16                  // of one function
	MaxAttempts                         = 100
	maxBackoff                          = 24 * time.Hour
	maxAge                              = 30 * 24 * time.Hour
	maxNamed                            = 1000 // functions of one app; the same for subscriptions and event types
	maxGrants                           = 100  // of one function
	maxPublish                          = 100  // event types of one grant
	maxPath                             = 1024 // bytes of a path in the app's folder
)

// DefaultLimits returns what a function gets that says nothing.
func DefaultLimits() Limits {
	return Limits{Output: DefaultOutput, Log: DefaultLog, Events: DefaultEvents, HostCalls: DefaultHostCalls}
}

// DefaultRetry returns what a subscription gets that says nothing.
func DefaultRetry() Retry {
	return Retry{Attempts: 5, Backoff: time.Second, MaxBackoff: time.Minute, MaxAge: 24 * time.Hour}
}

// ParseApp reads the text of an app.toml; file names it in messages. The error is a problem with
// every fault in it.
func ParseApp(file string, text []byte) (*App, error) {
	d, err := open(file, text)
	if err != nil {
		return nil, err
	}
	root := d.table(d.root)
	root.need("name", `the app has no name; begin the file with name = "my-app"`)
	app := &App{
		Name:          root.appName(),
		EventTypes:    map[ident.EventType]EventType{},
		Functions:     map[ident.FunctionName]Function{},
		Subscriptions: map[ident.SubscriptionName]Subscription{},
	}
	types, functions := root.tables("event_types", maxNamed), root.tables("functions", maxNamed)
	subscriptions := root.tables("subscriptions", maxNamed)
	root.done()
	for name, t := range types {
		t.eventType(app, name)
	}
	for name, t := range functions {
		t.function(app, name)
	}
	for name, t := range subscriptions {
		t.subscription(app, name, root.functionNames())
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return app, nil
}

// functionNames returns the functions as they stand in the text, valid or not: a fault in a function is
// no fault in its subscriptions. It is nil when their table is misspelt, so that they are not known.
func (t *table) functionNames() map[string]*node {
	if slices.Contains(t.misspelt, "functions") {
		return nil
	}
	if n := t.n.members["functions"]; n != nil && n.members != nil {
		return n.members
	}
	return map[string]*node{}
}

// words returns an ident error without its common prefix.
func words(err error) string {
	return strings.TrimPrefix(err.Error(), ident.ErrMalformed.Error()+": ")
}

func (t *table) appName() ident.AppName {
	s := t.text("name")
	if s == "" {
		return ""
	}
	name, err := ident.ParseAppName(s)
	if err != nil {
		t.fault("name", "%s", words(err))
	}
	return name
}

func (t *table) eventType(app *App, name string) {
	defer t.done()
	schema := t.localPath("schema")
	typ, err := ident.ParseEventType(name)
	if err != nil {
		t.d.fault(t.n.key, "%s", words(err))
		return
	}
	app.EventTypes[typ] = EventType{Schema: schema}
}

// localPath reads a path that must stay inside the app's folder.
func (t *table) localPath(key string) string {
	s := t.text(key)
	switch {
	case len(s) > maxPath:
		t.fault(key, "the path is %d bytes, at most %d are allowed", len(s), maxPath)
	case strings.ContainsFunc(s, unicode.IsControl):
		t.fault(key, "the path has a control character")
	case strings.Contains(s, "\\") || strings.HasPrefix(s, "/") || slices.Contains(strings.Split(s, "/"), ".."):
		t.fault(key, "a path is relative to the app's folder, with / between its parts, and stays inside")
	}
	return s
}

func (t *table) function(app *App, name string) {
	defer t.done()
	t.need("source", `the function has no source; add one, such as source = "%s.ts"`, clip(name))
	f := Function{Source: t.localPath("source"), Memory: DefaultMemory, Timeout: DefaultTimeout, Grants: map[string]Grant{}}
	t.size("memory", &f.Memory, MinMemory, MaxMemory)
	t.duration("timeout", &f.Timeout, MinTimeout, MaxTimeout)
	t.integer("min_instances", &f.MinInstances, 0, MaxMinInstances)
	f.Limits = t.table("limits").functionLimits()
	for g, grant := range t.tables("grants", maxGrants) {
		if _, err := ident.ParseGrantName(g); err != nil {
			t.d.fault(grant.n.key, "%s", words(err))
		}
		f.Grants[g] = grant.grant()
	}
	fn, err := ident.ParseFunctionName(name)
	if err != nil {
		t.d.fault(t.n.key, "%s", words(err))
		return
	}
	app.Functions[fn] = f
}

func (t *table) functionLimits() Limits {
	defer t.done()
	l := DefaultLimits()
	t.duration("cpu", &l.CPU, MinTimeout, MaxTimeout)
	t.size("output", &l.Output, MinOutput, MaxOutput)
	t.size("log", &l.Log, 0, MaxLog)
	t.integer("events", &l.Events, 0, MaxEvents)
	t.integer("host_calls", &l.HostCalls, 1, MaxHostCalls)
	return l
}

func (t *table) subscription(app *App, name string, functions map[string]*node) {
	defer t.done()
	t.need("function", "the subscription has no function")
	if !t.has("when") {
		t.need("filter", `the subscription selects nothing; add filter = { type = "some.type" } (or "*" for every event)`)
	}
	s := Subscription{
		Function: t.target(functions), Filter: t.filter(), When: t.when(), Retry: t.table("retry").retry(),
	}
	sn, err := ident.ParseSubscriptionName(name)
	if err != nil {
		t.d.fault(t.n.key, "%s", words(err))
		return
	}
	app.Subscriptions[sn] = s
}

// target reads the function that a subscription is for; functions are those there are, nil is not known.
func (t *table) target(functions map[string]*node) ident.FunctionName {
	name := t.text("function")
	if name == "" || functions == nil || functions[name] != nil {
		return ident.FunctionName(name)
	}
	near := ""
	if !t.d.full() {
		near = problem.Nearest(name, slices.Values(slices.Sorted(maps.Keys(functions))))
	}
	if near != "" {
		t.fault("function", "there is no function %q; did you mean %q?", clip(name), near)
	} else {
		t.fault("function", "there is no function %q in this app", clip(name))
	}
	return ""
}

func (t *table) filter() filter.Filter {
	sub := t.table("filter")
	var f filter.Filter
	for _, p := range []struct {
		key string
		to  *filter.Pattern
	}{{"type", &f.Type}, {"source", &f.Source}, {"subject", &f.Subject}} {
		var err error
		if *p.to, err = filter.ParsePattern(sub.text(p.key)); err != nil {
			sub.fault(p.key, "%v", err)
		}
	}
	sub.done()
	if n := t.n.members["filter"]; n != nil && n.kind == kindTable && len(n.order) == 0 {
		t.d.fault(n.value, `the filter selects nothing; add type = "some.type" (or "*" for every event)`)
	}
	return f
}

// when reads a condition and compiles it, to point at its faults; deploy compiles it for use.
func (t *table) when() string {
	text := t.text("when")
	if text == "" {
		return ""
	}
	_, err := filter.CompileWhen(text)
	if err == nil {
		return text
	}
	n := t.n.members["when"]
	bad := problem.From(err)
	if len(bad.Faults) == 0 {
		t.d.fault(n.value, "%s", bad.Public)
	}
	for _, f := range bad.Faults {
		t.d.fault(t.d.inText(n, f), "%s", f.Detail)
	}
	return text
}

func (t *table) retry() Retry {
	r := DefaultRetry()
	t.integer("attempts", &r.Attempts, 1, MaxAttempts)
	first := t.duration("backoff", &r.Backoff, time.Millisecond, maxBackoff)
	most := t.duration("max_backoff", &r.MaxBackoff, time.Millisecond, maxBackoff)
	t.duration("max_age", &r.MaxAge, time.Millisecond, maxAge)
	t.done()
	switch {
	case r.MaxBackoff >= r.Backoff:
	case first && most:
		t.fault("max_backoff", "less than backoff, which is %s", formatDuration(r.Backoff))
	case first:
		r.MaxBackoff = r.Backoff
	default:
		r.Backoff = r.MaxBackoff
	}
	return r
}
