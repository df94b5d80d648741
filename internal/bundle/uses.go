package bundle

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tdewolff/parse/v2"
	"github.com/tdewolff/parse/v2/js"

	wire "sallyport/api"
	"sallyport/internal/cell/harden"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/sourcemap"
)

// grantUses is what a script is seen to use of ctx.grants. Only what is certain is said: a script whose handler is not found, or
// cannot be parsed here, has none.
type grantUses struct {
	names map[string]*grantUse
	// open says that there may be others: ctx or ctx.grants goes where it is not followed.
	open bool
	// fetches says that fetch may be called, which finds a grant by the URL.
	fetches bool
}

// grantUse is one name in ctx.grants.
type grantUse struct {
	// times is how often it is named, and needed how often a member of it is taken without a look at whether it is there.
	times, needed int
}

// usesOf looks for the grants that the handler of a bundled script uses; nil when that cannot be said.
func usesOf(code []byte) *grantUses {
	tree, err := js.Parse(parse.NewInputBytes(slices.Clip(code)), js.Options{}) // clipped, because it writes behind the end
	if err != nil {
		return nil
	}
	d := &declarations{values: map[*js.Var]js.IExpr{}, changed: map[*js.Var]bool{}}
	js.Walk(d, tree)
	params := d.handler()
	if params == nil {
		return nil
	}
	u := &usesVisitor{
		uses: &grantUses{names: map[string]*grantUse{}, open: d.hidden || params.Rest != nil, fetches: d.fetches}, declared: d, grants: map[*js.Var]bool{},
	}
	if len(params.List) > 1 {
		u.context(params.List[1].Binding)
	}
	js.Walk(aliases{u}, tree)
	js.Walk(u, tree)
	if u.seen != u.understood {
		u.uses.open = true
	}
	return u.uses
}

// declarations are what a script's names stand for.
type declarations struct {
	values  map[*js.Var]js.IExpr
	changed map[*js.Var]bool // assigned to after that
	exports js.IExpr         // as default
	// name is the local name of that, when it is exported in a list.
	name []byte
	// hidden says that arguments or eval may reach what is not named, and fetches that fetch or all globals are named.
	hidden, fetches bool
}

func (d *declarations) Enter(n js.INode) js.IVisitor {
	switch n := n.(type) {
	case *js.VarDecl:
		for _, e := range n.List {
			if v, ok := e.Binding.(*js.Var); ok && e.Default != nil {
				d.values[resolve(v)] = e.Default
			}
		}
	case *js.FuncDecl:
		if n.Name != nil {
			d.values[resolve(n.Name)] = n
		}
	case *js.BinaryExpr:
		if v, ok := n.X.(*js.Var); ok && isAssignment(n.Op) {
			d.changed[resolve(v)] = true
		}
	case *js.ExportStmt:
		if n.Default {
			d.exports = n.Decl
		}
		for _, a := range n.List {
			if string(a.Binding) == "default" {
				d.name = a.Name
			}
		}
	case *js.Var:
		switch string(n.Name()) {
		case "arguments", "eval":
			d.hidden = true
		case "fetch", "globalThis", "self":
			d.fetches = true
		}
	}
	return d
}

func (d *declarations) Exit(js.INode) {}

func isAssignment(op js.TokenType) bool {
	switch op {
	case js.EqToken, js.AndEqToken, js.OrEqToken, js.NullishEqToken:
		return true
	}
	return false
}

// handler returns the parameters of the function that is exported as default, or nil.
func (d *declarations) handler() *js.Params {
	e := d.exports
	if e == nil {
		for v, value := range d.values {
			if bytes.Equal(v.Name(), d.name) && v.Decl != js.ArgumentDecl && v.Decl != js.CatchDecl {
				if e != nil {
					return nil // two of the name, in different scopes
				}
				e = value
				if d.changed[v] {
					return nil
				}
			}
		}
	}
	const most = 8 // names for one function
	for range most {
		switch at := e.(type) {
		case *js.FuncDecl:
			return &at.Params
		case *js.ArrowFunc:
			return &at.Params
		case *js.GroupExpr:
			e = at.X
		case *js.Var:
			v := resolve(at)
			if d.changed[v] {
				return nil
			}
			e = d.values[v]
		default:
			return nil
		}
	}
	return nil
}

// resolve returns the declaration that a use of a name is of.
func resolve(v *js.Var) *js.Var {
	for v.Link != nil {
		v = v.Link
	}
	return v
}

// usesVisitor finds the uses of grants. It counts where ctx and ctx.grants are named, and which of these places it understands: when
// there are others, something may be done there that is not seen.
type usesVisitor struct {
	uses     *grantUses
	declared *declarations

	ctx              *js.Var
	grants           map[*js.Var]bool // names for ctx.grants
	seen, understood int
}

// context takes in what is bound to ctx: a name, or the parts of it.
func (u *usesVisitor) context(b js.IBinding) {
	switch b := b.(type) {
	case *js.Var:
		u.ctx = resolve(b)
		u.understood++ // this place
		u.uses.open = u.uses.open || u.declared.changed[u.ctx]
	case *js.BindingObject:
		u.uses.open = u.uses.open || b.Rest != nil
		for i := range b.List {
			item := &b.List[i]
			switch name, ok := keyOf(item); {
			case !ok:
				u.uses.open = true
			case name == "grants":
				u.bind(item.Value.Binding)
			}
		}
	default:
		u.uses.open = true
	}
}

// bind takes in what is bound to ctx.grants.
func (u *usesVisitor) bind(b js.IBinding) {
	switch b := b.(type) {
	case *js.Var:
		v := resolve(b)
		u.grants[v] = true
		u.understood++ // this place
		u.uses.open = u.uses.open || u.declared.changed[v]
	case *js.BindingObject:
		u.uses.open = u.uses.open || b.Rest != nil
		for i := range b.List {
			if name, ok := keyOf(&b.List[i]); ok {
				u.uses.use(name).times++
			} else {
				u.uses.open = true
			}
		}
	default:
		u.uses.open = true
	}
}

// keyOf returns the name of the member that a part of a pattern is bound to.
func keyOf(item *js.BindingObjectItem) (string, bool) {
	if item.Key == nil {
		v, ok := item.Value.Binding.(*js.Var)
		if !ok {
			return "", false
		}
		return string(v.Data), true
	}
	if item.Key.IsComputed() {
		return "", false
	}
	return literal(&item.Key.Literal)
}

// literal returns the name that an identifier or a text is, when it is written plainly.
func literal(l *js.LiteralExpr) (string, bool) {
	text := string(l.Data)
	if l.TokenType == js.StringToken {
		text = text[1 : len(text)-1]
	}
	return text, !strings.ContainsRune(text, '\\')
}

// use returns the use of a name, which may not have been named yet.
func (u *grantUses) use(name string) *grantUse {
	if u.names[name] == nil {
		u.names[name] = &grantUse{}
	}
	return u.names[name]
}

// isContext and isGrants report whether an expression is ctx, or ctx.grants.
func (u *usesVisitor) isContext(e js.IExpr) bool {
	v, ok := e.(*js.Var)
	return ok && u.ctx != nil && resolve(v) == u.ctx
}

func (u *usesVisitor) isGrants(e js.IExpr) bool {
	switch e := e.(type) {
	case *js.Var:
		return u.grants[resolve(e)]
	case *js.DotExpr:
		name, ok := e.Y.(js.LiteralExpr)
		return ok && string(name.Data) == "grants" && u.isContext(e.X)
	}
	return false
}

// aliases takes in what is declared to be ctx.grants or a part of it, before uses are looked for.
type aliases struct{ *usesVisitor }

func (a aliases) Enter(n js.INode) js.IVisitor {
	d, ok := n.(*js.VarDecl)
	if !ok {
		return a
	}
	for _, e := range d.List {
		switch _, pattern := e.Binding.(*js.BindingObject); {
		case e.Default == nil:
		case a.isGrants(e.Default):
			a.understood++
			a.bind(e.Binding)
		case a.isContext(e.Default) && pattern:
			a.understood++
			a.context(e.Binding)
		}
	}
	return a
}

func (u *usesVisitor) Exit(js.INode) {}

func (u *usesVisitor) Enter(n js.INode) js.IVisitor {
	switch n := n.(type) {
	case *js.Var:
		if u.isContext(n) || u.isGrants(n) {
			u.seen++
		}
	case *js.DotExpr:
		u.dot(n)
	case *js.IndexExpr:
		if at, ok := n.Y.(*js.LiteralExpr); ok && u.isGrants(n.X) && at.TokenType == js.StringToken {
			if name, ok := literal(at); ok {
				u.understood++
				u.uses.use(name).times++
			}
		}
	}
	return u
}

func (u *usesVisitor) dot(n *js.DotExpr) {
	if u.isContext(n.X) {
		u.understood++
	}
	if u.isGrants(n) {
		u.seen++
	}
	at, ok := n.Y.(js.LiteralExpr)
	if !ok {
		return
	}
	if u.isGrants(n.X) {
		u.understood++
		u.uses.use(string(at.Data)).times++
	}
	if of, ok := n.X.(*js.DotExpr); ok && !n.Optional && u.isGrants(of.X) {
		if name, ok := of.Y.(js.LiteralExpr); ok {
			u.uses.use(string(name.Data)).needed++
		}
	}
}

// checkGrants holds what scripts use of ctx.grants against the grants of the functions that run them: a name that none of them has, and
// of which the script takes a member without a look at whether it is there, is a fault.
func (l *loader) checkGrants(b *wire.Bundle, app *manifest.App) {
	for _, functions := range bySource(app) {
		module := b.Modules[functions[0]]
		if module.Kind != wire.ModuleScript {
			continue
		}
		uses := usesOf(module.Code)
		if uses == nil {
			continue
		}
		has := map[string]bool{}
		for _, f := range functions {
			for name := range app.Functions[ident.FunctionName(f)].Grants {
				has[name] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(uses.names)) {
			use := uses.names[name]
			if has[name] || use.needed == 0 || use.needed < use.times || isObjectMember(name) {
				continue
			}
			detail := fmt.Sprintf("the function %s has no grant %q", functions[0], name)
			if near := problem.Nearest(name, maps.Keys(has)); near != "" {
				detail += fmt.Sprintf("; did you mean %q?", near)
			}
			l.faults = append(l.faults, l.inScript(module, name, app.Functions[ident.FunctionName(functions[0])].Source, detail))
		}
	}
}

// bySource returns the functions of each source, in order.
func bySource(app *manifest.App) [][]string {
	sources := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(app.Functions)) {
		source := app.Functions[name].Source
		sources[source] = append(sources[source], string(name))
	}
	var out [][]string
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		out = append(out, sources[source])
	}
	return out
}

// isObjectMember reports whether every object has a member of this name.
func isObjectMember(name string) bool {
	switch name {
	case "constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf", "__proto__":
		return true
	}
	return false
}

// inScript returns a fault at the first place of a script where a member of the name is taken, in its author's file.
func (l *loader) inScript(m wire.Module, name, source, detail string) problem.Fault {
	f := problem.Fault{File: source, Detail: detail}
	at := regexp.MustCompile(`\bgrants\??\.(` + regexp.QuoteMeta(name) + `)\b`).FindSubmatchIndex(m.Code)
	if at == nil {
		at = regexp.MustCompile(`\.(` + regexp.QuoteMeta(name) + `)\b`).FindSubmatchIndex(m.Code)
	}
	known, err := sourcemap.Parse(m.SourceMap)
	if at == nil || err != nil {
		return f
	}
	before := m.Code[:at[2]]
	begin := bytes.LastIndexByte(before, '\n') + 1
	places := []sourcemap.Place{{Line: bytes.Count(before, []byte{'\n'}) + 1, Column: utf16Length(m.Code[begin:at[2]]) + 1}}
	known.Resolve(places)
	if places[0].File == "" {
		return f
	}
	f.File, f.Line = places[0].File, places[0].Line
	text, err := read(l.root, filepath.FromSlash(f.File), maxInputBytes)
	if err != nil {
		return f
	}
	lines := strings.Split(string(text), "\n")
	if f.Line > len(lines) {
		return f
	}
	line := strings.TrimRight(lines[f.Line-1], "\r")
	if found := regexp.MustCompile(`\.(` + regexp.QuoteMeta(name) + `)\b`).FindStringSubmatchIndex(line); found != nil && utf8.RuneCountInString(line) <= maxSource {
		f.Source, f.Column, f.Length = line, utf8.RuneCountInString(line[:found[2]])+1, utf8.RuneCountInString(name)
	}
	return f
}

// utf16Length returns the length of a text as source maps count columns.
func utf16Length(text []byte) int { return len(utf16.Encode([]rune(string(text)))) }

// Idle is what functions have and, as far as can be told, do not use, at its places in the manifest. Publish grants are not among it: what a
// function returns is published too.
type Idle struct {
	// Unused are grants that are certainly not used.
	Unused []problem.Fault
	// Unnamed are grants whose names are nowhere in the module, which may make them up when it runs.
	Unnamed []problem.Fault
}

// IdleGrants returns what can be told of the grants of an app.
func IdleGrants(b *wire.Bundle, app *manifest.App) (idle Idle) {
	for _, functions := range bySource(app) {
		switch module := b.Modules[functions[0]]; module.Kind {
		case wire.ModuleScript:
			idle.script(b, app, functions, module.Code)
		case wire.ModuleWasm:
			idle.module(b, app, functions, module.Code)
		}
	}
	return idle
}

// script adds what is idle of functions with one script.
func (i *Idle) script(b *wire.Bundle, app *manifest.App, functions []string, code []byte) {
	uses := usesOf(code)
	if uses == nil || uses.open {
		return
	}
	for f, name := range granted(app, functions) {
		if uses.names[name] != nil || app.Functions[f].Grants[name].Kind() == manifest.KindHTTP && uses.fetches {
			continue
		}
		i.Unused = append(i.Unused, grantFault(b, f, name, "the script of the function %s does not use its grant %q"))
	}
}

// module adds what is idle of functions with one module. Of one that cannot be read nothing is said: the server says it. Nor is it of one that can use grants
// and has none: what is made with the Rust SDK always imports what it takes.
func (i *Idle) module(b *wire.Bundle, app *manifest.App, functions []string, code []byte) {
	surface, err := harden.Look(code)
	if err != nil {
		return
	}
	able := surface.Imports(hostModule, grantStart)
	for f, name := range granted(app, functions) {
		switch {
		case !able:
			i.Unused = append(i.Unused, grantFault(b, f, name, "the module of the function %s does not use its grant %q: it does not import "+hostModule+"."+grantStart))
		case !surface.Mentions(name):
			i.Unnamed = append(i.Unnamed, grantFault(b, f, name, "the module of the function %s may not use its grant %q: its name occurs nowhere in the module"))
		}
	}
}

// Modules begin the use of a grant by this import (design/abi.md).
const (
	hostModule = "sallyport"
	grantStart = "grant_start"
)

// granted yields the functions with the names of their grants, but for those of publish.
func granted(app *manifest.App, functions []string) iter.Seq2[ident.FunctionName, string] {
	return func(yield func(ident.FunctionName, string) bool) {
		for _, f := range functions {
			f := ident.FunctionName(f)
			grants := app.Functions[f].Grants
			for _, name := range slices.Sorted(maps.Keys(grants)) {
				if grants[name].Kind() != manifest.KindPublish && !yield(f, name) {
					return
				}
			}
		}
	}
}

// grantFault is a fault of a grant, at its place in the manifest.
func grantFault(b *wire.Bundle, f ident.FunctionName, name, format string) problem.Fault {
	return manifest.FaultAt(ManifestName, []byte(b.Manifest), fmt.Sprintf(format, f, name), "functions", string(f), "grants", name)
}
