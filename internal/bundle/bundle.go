// Package bundle makes an app's folder one api.Bundle: the manifest, a script or module for each
// function, the schemas.
//
// JavaScript and TypeScript are bundled by esbuild in-process, into one file without imports: a
// function has no file system to import from. Nothing outside the app's folder gets into a bundle, by
// whatever path or symbolic link, so that an app from elsewhere cannot take files along when it is
// applied. The same files give the same bytes, wherever the folder is. It runs on the developer's
// machine, never in the server. Caller: cli.
package bundle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	wire "sallyport/api"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// ManifestName is the file that makes a folder an app.
const ManifestName = "app.toml"

// Limits of what is read and made, in bytes. The server has the same; here they save the upload.
const (
	maxSchemaBytes = 256 << 10
	maxModuleBytes = 32 << 20
	maxScriptBytes = 4 << 20  // of a bundled script
	maxInputBytes  = 64 << 20 // of all files that a script is bundled from
	maxTotalBytes  = 64 << 20 // of a bundle; a request holds it in base64
	maxFaults      = 20       // that one answer names
)

// Load reads the app in dir. The error is a problem with every fault in it.
func Load(dir string) (*wire.Bundle, *manifest.App, error) {
	root, err := openApp(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = root.Close() }() // it was only read from
	l := &loader{root: root, scripts: map[string]wire.Module{}}
	app, err := l.manifest(dir)
	if err != nil {
		return nil, nil, err
	}
	if l.dir, err = realPath(dir); err != nil {
		return nil, nil, fmt.Errorf("find the app's folder: %w", err)
	}
	b := &wire.Bundle{Manifest: string(l.text), Modules: map[string]wire.Module{}, Schemas: map[string]string{}}
	l.schemas(b, app)
	l.modules(b, app)
	l.checkGrants(b, app)
	l.total(b)
	if len(l.faults) > 0 {
		return nil, nil, invalid(l.faults)
	}
	return b, app, nil
}

// Manifest reads the manifest of the app in dir, and nothing that it names.
func Manifest(dir string) (*manifest.App, error) {
	root, err := openApp(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read from
	return (&loader{root: root}).manifest(dir)
}

func openApp(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		what := "the folder %s cannot be opened"
		if st, statErr := os.Stat(dir); statErr == nil && !st.IsDir() {
			what = "%s is a file, and no folder with an app"
		} else if errors.Is(statErr, fs.ErrNotExist) {
			what = "there is no folder %s"
		}
		return nil, problem.New(problem.NotFound, "bundle.no_app", what, dir).
			WithHint("name the app's folder, or make one with `sallyport init`").WithCause(err)
	}
	return root, nil
}

// manifest reads the manifest, and keeps its text.
func (l *loader) manifest(dir string) (app *manifest.App, err error) {
	l.text, err = read(l.root, ManifestName, manifest.MaxBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, problem.New(problem.NotFound, "bundle.no_app", "%s has no %s", dir, ManifestName).
			WithHint("go to the app's folder, or make one with `sallyport init`")
	case err != nil:
		return nil, invalid([]problem.Fault{{File: ManifestName, Detail: reason(err)}})
	}
	return manifest.ParseApp(ManifestName, l.text)
}

// realPath returns the absolute path of a folder without symbolic links.
func realPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// invalid returns the problem of some faults, each once, in the order of files and lines.
func invalid(faults []problem.Fault) error {
	slices.SortFunc(faults, func(a, b problem.Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Detail, b.Detail))
	})
	faults = slices.Compact(faults)
	p := problem.New(problem.Invalid, "bundle.source_invalid", "the app's sources have faults")
	if len(faults) == 1 {
		p.Public = "the app's sources have a fault"
	}
	return p.WithFaults(faults[:min(len(faults), maxFaults)]...)
}

// loader reads one app.
type loader struct {
	root    *os.Root
	dir     string // of root, without symbolic links
	text    []byte // of the manifest
	scripts map[string]wire.Module
	faults  []problem.Fault
}

// atKey notes a fault at a value of the manifest.
func (l *loader) atKey(detail string, key ...string) {
	l.faults = append(l.faults, manifest.FaultAt(ManifestName, l.text, detail, key...))
}

func (l *loader) schemas(b *wire.Bundle, app *manifest.App) {
	for _, name := range slices.Sorted(maps.Keys(app.EventTypes)) {
		file := app.EventTypes[name].Schema
		if _, done := b.Schemas[file]; done || file == "" {
			continue
		}
		text, err := read(l.root, file, maxSchemaBytes)
		if err != nil {
			l.atKey(reason(err), "event_types", string(name), "schema")
			continue
		}
		b.Schemas[file] = string(text)
	}
}

func (l *loader) modules(b *wire.Bundle, app *manifest.App) {
	for _, name := range slices.Sorted(maps.Keys(app.Functions)) {
		module, err := l.module(app.Functions[name].Source)
		switch bad, ok := errors.AsType[sourceError](err); {
		case err == nil:
			b.Modules[string(name)] = module
		case ok:
			l.faults = append(l.faults, bad.faults...)
		default:
			l.atKey(reason(err), "functions", string(name), "source")
		}
	}
}

// total sees to the size of the whole.
func (l *loader) total(b *wire.Bundle) {
	total := 0
	for _, m := range b.Modules {
		total += len(m.Code) + len(m.SourceMap)
	}
	for _, s := range b.Schemas {
		total += len(s)
	}
	if total > maxTotalBytes {
		l.atKey(fmt.Sprintf("the app is %d bytes together, at most %d are allowed; split it into several apps", total, maxTotalBytes), "name")
	}
}

// recipe says what builds the app's modules, where the app is one that `sallyport init` made or is like it.
func (l *loader) recipe() string {
	const name = "build"
	if st, err := l.root.Stat(name); err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o100 == 0 {
		return ""
	}
	return ": ./" + name
}

// module makes the module of one source. An error that is no sourceError is about the source itself.
func (l *loader) module(source string) (wire.Module, error) {
	st, err := l.root.Stat(filepath.FromSlash(source))
	if err != nil {
		if path.Ext(source) == ".wasm" && errors.Is(err, fs.ErrNotExist) {
			return wire.Module{}, errors.New("there is no such file; build the module first" + l.recipe())
		}
		return wire.Module{}, err
	}
	if st.IsDir() {
		if source, err = entry(l.root, source); err != nil {
			return wire.Module{}, err
		}
	}
	switch ext := path.Ext(source); {
	case ext == ".wasm":
		return wasm(l.root, source)
	case slices.Contains(scriptEndings(), ext):
		if m, ok := l.scripts[source]; ok {
			return m, nil
		}
		m, err := script(l.dir, source)
		if err == nil {
			l.scripts[source] = m
		}
		return m, err
	}
	return wire.Module{}, errors.New("a source ends in .ts, .js, .mjs or .wasm, or is a folder with an index.ts or index.js")
}

// entry returns the entry file of a folder.
func entry(root *os.Root, dir string) (string, error) {
	for _, ext := range scriptEndings() {
		name := path.Join(dir, "index"+ext)
		if st, err := root.Stat(filepath.FromSlash(name)); err == nil && st.Mode().IsRegular() {
			return name, nil
		}
	}
	return "", errors.New("the folder has no index.ts or index.js; a program in another language is named by its .wasm file")
}

// wasm reads a WebAssembly binary. The server checks what is in it.
func wasm(root *os.Root, source string) (wire.Module, error) {
	code, err := read(root, source, maxModuleBytes)
	if err != nil {
		return wire.Module{}, err
	}
	if !bytes.HasPrefix(code, []byte("\x00asm")) {
		return wire.Module{}, errors.New("this is no WebAssembly binary; build the module again")
	}
	return wire.Module{Kind: wire.ModuleWasm, Code: code}, nil
}

var (
	errNotRegular = errors.New("it is not a regular file")
	errTooLarge   = errors.New("it is too large")
)

// read reads a file inside root, of at most limit bytes. Symbolic links out of root are refused by root
// itself; a pipe would never end, so only regular files are opened.
func read(root *os.Root, name string, limit int64) (text []byte, err error) {
	name = filepath.FromSlash(name)
	st, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", errTooLarge, limit)
	}
	return text, err
}

// reason returns what went wrong with a file, without its path, which stands beside it.
func reason(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	case errors.Is(err, fs.ErrPermission):
		return "it may not be read"
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}
