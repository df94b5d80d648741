package cell

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"sallyport/internal/cell/js"
	"sallyport/internal/problem"
	"sallyport/internal/sourcemap"
)

// script drives JavaScript. The script is evaluated once, when it is loaded; every event begins with
// the memory as it was then, where no event has been.
type script struct {
	name string
	// sources parses the source map when it is needed first; nil when there is none.
	sources func() *sourcemap.Map
}

// loadScript loads one bundled JavaScript file.
func (e *Engine) loadScript(ctx context.Context, spec Spec, limits Limits) (*Function, error) {
	if err := checkScript(spec); err != nil {
		return nil, err
	}
	m, err := e.acquire(ctx, sourceOf(js.Code()), e.cfg.CompileWorkers)
	if err != nil {
		return nil, err
	}
	e.keepForScripts(m)
	s := &script{name: spec.Name, sources: sourcesOf(spec.SourceMap)}
	f := &Function{name: spec.Name, kind: KindJavaScript, module: m, guest: s, limits: limits, grants: spec.Grants, engine: e, held: int64(len(spec.SourceMap))}
	err = f.fits()
	if err == nil {
		err = f.prepareWithin(ctx, spec.Trial, func(ctx context.Context, inv *invocation) error { return f.boot(ctx, inv, spec.Code) }, f.explainBoot)
	}
	if err == nil {
		err = f.pin(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(ctx))
	}
	return f, nil
}

// checkScript refuses what need not be run to be refused.
func checkScript(spec Spec) error {
	switch {
	case len(spec.Code) > MaxScriptBytes:
		return problem.New(problem.Unprocessable, "cell.module_too_large", "%s: the bundled script is %d bytes long, the limit is %d",
			spec.Name, len(spec.Code), MaxScriptBytes)
	case len(spec.SourceMap) > MaxSourceMapBytes:
		return problem.New(problem.Unprocessable, "cell.module_too_large", "%s: the source map is %d bytes long, the limit is %d",
			spec.Name, len(spec.SourceMap), MaxSourceMapBytes)
	case !utf8.Valid(spec.Code):
		return problem.New(problem.Unprocessable, codeScriptInvalid, "%s is not UTF-8 text", spec.Name)
	}
	return nil
}

// sourcesOf returns the source map, parsed at the first call. A map that is malformed costs the
// author's lines in messages and nothing else.
func sourcesOf(text []byte) func() *sourcemap.Map {
	return sync.OnceValue(func() *sourcemap.Map {
		if len(text) == 0 {
			return nil
		}
		m, err := sourcemap.Parse(text)
		if err != nil {
			return nil
		}
		return m
	})
}

// boot evaluates the script and takes the template of it, as its difference to one in which only the
// prelude was, which all scripts share.
func (f *Function) boot(ctx context.Context, inv *invocation, code []byte) error {
	base, err := f.engine.scriptBase(ctx, f, inv)
	if err != nil {
		return err
	}
	key := f.engine.cacheKey("script", base.digest[:], []byte(f.name), code, fmt.Append(nil, f.limits.Memory), grantNames(f.grants))
	if f.template = f.recall(key, base.image); f.template != nil {
		return nil
	}
	in, s, err := f.newScript(ctx, inv, base.template)
	if err != nil {
		return err
	}
	defer func() { inv.release(ctx, in, f.template) }()
	if err := in.become(ctx, base.template); err != nil {
		return err
	}
	s.vm.Resume(base.script)
	state, err := s.vm.Load(s.vm.Context(ctx), f.name, code)
	if err != nil {
		return err
	}
	if f.template, err = in.take(base.image, true); err != nil {
		return err
	}
	f.template.script = state
	f.engine.remember(key, f.template)
	return nil
}

// grantNames returns the JSON of the kinds of grants, with what is to be known about each, by their names: a script is evaluated with them.
func grantNames(specs []GrantSpec) []byte {
	names := make(map[string]string, len(specs))
	for _, s := range specs {
		names[s.Name] = s.Kind
		if s.About != "" {
			names[s.Name] += " " + s.About
		}
	}
	text, err := json.Marshal(names, json.Deterministic(true))
	if err != nil {
		panic("BUG: names of grants cannot be written: " + err.Error())
	}
	return text
}

// newScript returns an instance of QuickJS for what is not an event, as instantiate makes it.
func (f *Function) newScript(ctx context.Context, inv *invocation, t *template) (*instance, *scriptSession, error) {
	in, err := f.instantiate(ctx, inv, t)
	if err != nil {
		return nil, nil, err
	}
	s, ok := in.session.(*scriptSession)
	if !ok {
		panic("BUG: a script is driven as something else")
	}
	s.inv = inv
	return in, s, nil
}

// scriptBase is the template of QuickJS with the prelude, which all scripts share.
type scriptBase struct {
	*template
	// digest tells this base from others: what QuickJS puts into its memory is not the same each time.
	digest digest
}

// scriptBase returns the base of all scripts. The first one that is loaded makes it.
func (e *Engine) scriptBase(ctx context.Context, f *Function, inv *invocation) (*scriptBase, error) {
	e.basing.Lock()
	defer e.basing.Unlock()
	if e.base != nil {
		return e.base, nil
	}
	key := e.cacheKey("base", f.module.digest[:], js.Prelude())
	t := f.recall(key, nil)
	if t == nil {
		var err error
		if t, err = f.prepareScripts(ctx, inv); err != nil {
			return nil, err
		}
		e.remember(key, t)
	}
	e.base = &scriptBase{template: t, digest: sha256.Sum256(t.append(nil))}
	return e.base, nil
}

// prepareScripts returns the template of QuickJS with the prelude.
func (f *Function) prepareScripts(ctx context.Context, inv *invocation) (*template, error) {
	in, s, err := f.newScript(ctx, inv, nil)
	if err != nil {
		return nil, err
	}
	defer func() { inv.release(ctx, in, nil) }()
	state, err := s.vm.Prepare(s.vm.Context(ctx))
	if err != nil {
		return nil, err
	}
	t, err := in.take(nil, true)
	if err != nil {
		return nil, err
	}
	t.script = state
	return t, nil
}

// explainBoot returns the problem of a script that could not be loaded.
func (f *Function) explainBoot(caller context.Context, inv *invocation, err error) error {
	switch {
	case caller.Err() != nil:
		return problem.New(problem.Unavailable, codeCanceled, "loading %s was abandoned", f.name).WithCause(context.Cause(caller))
	case errors.Is(inv.call.ended(), errCPU):
		return problem.New(problem.Unprocessable, codeScriptInvalid, "the top level of %s used more processor time than %s", f.name, inv.limits.CPU).
			WithHint("raise limits.cpu in app.toml, or move what takes long into the handler")
	case inv.call.ended() != nil:
		return problem.New(problem.Unprocessable, codeScriptInvalid, "the top level of %s ran longer than %s", f.name, inv.limits.Timeout).
			WithHint("move what takes long into the handler")
	case inv.refused, errors.Is(err, js.ErrOutOfMemory):
		return problem.New(problem.Unprocessable, "cell.memory_limit_too_small", "the top level of %s needs more memory than its limit of %d bytes", f.name, f.limits.Memory).
			WithHint("raise memory in app.toml").WithCause(err)
	case errors.Is(err, js.ErrNoHandler):
		return problem.New(problem.Unprocessable, "cell.script_no_handler", "%s has no handler: its default export is not a function", f.name).
			WithHint("export default function (event, ctx) { … }")
	case errors.Is(err, js.ErrNeverSettles):
		return problem.New(problem.Unprocessable, codeScriptInvalid, "the top level of %s awaits a promise that can never settle", f.name)
	}
	if thrown, ok := errors.AsType[*js.Exception](err); ok {
		p := f.locate(failed(thrownFailure(thrown)))
		return problem.New(problem.Unprocessable, codeScriptInvalid, "%s cannot be loaded: %s", f.name, p.Public).WithFaults(p.Faults...)
	}
	return problem.New(problem.Unprocessable, codeScriptInvalid, "%s cannot be loaded: %s", f.name, explainTrap(err).Public).WithCause(err)
}

func (*script) prepare(*invocation) {}

func (*script) attach(in *instance) session {
	s := &scriptSession{function: in.function}
	s.vm = js.NewVM(in, s)
	return s
}

// scriptSession is QuickJS in one instance, and what a script gets from its invocation.
type scriptSession struct {
	function *Function
	vm       *js.VM
	inv      *invocation
}

// initialize does nothing: the template of a script has been initialised.
func (*scriptSession) initialize(context.Context) error { return nil }

// reseeds is true: the prelude seeds the random numbers of each event.
func (*scriptSession) reseeds(context.Context) bool { return true }

func (s *scriptSession) handle(ctx context.Context, inv *invocation) error {
	s.inv = inv
	s.vm.Resume(s.function.template.script)
	err := s.vm.Handle(s.vm.Context(ctx), inv.input.Event)
	if thrown, ok := errors.AsType[*js.Exception](err); ok {
		failure := thrownFailure(thrown)
		if thrown.Rejection {
			failure.Message = "a promise was rejected and nothing handled it: " + failure.Message
		}
		return failed(failure)
	}
	switch {
	case errors.Is(err, js.ErrNeverSettles):
		return problem.New(problem.FunctionFailed, "cell.never_settles", "the function awaits a promise that can never settle")
	case errors.Is(err, js.ErrOutOfMemory):
		return problem.New(problem.FunctionFailed, codeMemory, "the function used up its memory of %d bytes", inv.limits.Memory).
			WithHint("raise memory in app.toml")
	}
	return err
}

// thrownFailure returns what a script threw as a failure.
func thrownFailure(thrown *js.Exception) *Failure {
	var wire wireError
	if err := json.Unmarshal(thrown.JSON, &wire); err != nil {
		return &Failure{Message: "the function threw a value that cannot be described"}
	}
	return wire.failure()
}

// locate makes the stack of a script's failure speak of the author's files, and names the first
// place as the fault.
func (f *Function) locate(p *problem.Error) *problem.Error {
	failure, ok := Failed(p)
	s, isScript := f.guest.(*script)
	if !ok || !isScript || failure.Stack == "" {
		return p
	}
	frames := js.Frames(failure.Stack, s.name, s.sources())
	failure.Stack = ""
	for _, frame := range frames {
		failure.Stack += frame.String() + "\n"
	}
	if len(frames) == 0 {
		return p
	}
	return p.WithFaults(faultAt(frames[0].Place, failure.Message))
}

// faultAt marks the line, not the column: QuickJS knows the column of a call by its parenthesis.
func faultAt(at sourcemap.Place, message string) problem.Fault {
	fault := problem.Fault{File: at.File, Line: at.Line, Column: at.Column, Length: 1, Detail: message}
	if text := strings.TrimLeft(at.Source, " \t"); text != "" {
		fault.Source = clip(at.Source)
		fault.Column = 1 + len(at.Source) - len(text)
		fault.Length = utf8.RuneCountInString(strings.TrimPrefix(fault.Source, at.Source[:fault.Column-1]))
	}
	return fault
}

// Log implements js.Host.
func (s *scriptSession) Log(level uint32, line []byte) {
	if s.inv.called() {
		s.inv.logs.add(levelOf(level), line)
	}
}

// Result takes the result. Past the limit the write ends the invocation, which is why its error
// need not be looked at.
func (s *scriptSession) Result(text []byte) { _, _ = s.inv.result.Write(text) }

// Random implements js.Host.
func (s *scriptSession) Random(p []byte) {
	if s.inv.called() {
		_, _ = rand.Read(p) // never fails
	}
}

// Attempt implements js.Host.
func (s *scriptSession) Attempt() int {
	s.inv.called()
	return s.inv.input.Attempt
}

// Deadline implements js.Host.
func (s *scriptSession) Deadline() int64 {
	s.inv.called()
	return s.inv.deadline.UnixMilli()
}

// Grants implements js.Host. They are in the order of their names, by which they have the same numbers in a template that was kept.
func (s *scriptSession) Grants() []js.Grant {
	grants := make([]js.Grant, len(s.function.grants))
	for i, g := range s.function.grants {
		grants[i] = js.Grant{Name: g.Name, Kind: g.Kind, About: g.About}
	}
	slices.SortFunc(grants, func(a, b js.Grant) int { return strings.Compare(a.Name, b.Name) })
	return grants
}

// Use implements js.Host.
func (s *scriptSession) Use(grant, op string, request, body []byte) uint32 {
	return s.inv.uses.start(GrantUse{Grant: grant, Op: op, Request: request, Body: body})
}

// Waits implements js.Host.
func (s *scriptSession) Waits() bool { return s.inv.uses.pending() }

// Answer implements js.Host.
func (s *scriptSession) Answer(ctx context.Context, wait time.Duration) (js.Answer, bool) {
	number := s.inv.uses.await(ctx, 0, wait)
	a := s.inv.uses.answer(number)
	if a == nil {
		return js.Answer{}, false
	}
	s.inv.uses.end(number)
	return js.Answer{Number: number, JSON: a.JSON, Body: a.Body, Failed: a.Failed}, true
}
