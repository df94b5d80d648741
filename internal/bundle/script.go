package bundle

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/evanw/esbuild/pkg/api"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	wire "sallyport/api"
	"sallyport/internal/problem"
)

// scriptEndings are the endings of sources that esbuild bundles; of a folder's entries, the first counts.
func scriptEndings() []string {
	return []string{".ts", ".js", ".mts", ".mjs", ".tsx", ".jsx"}
}

// outFile is the name of what is made, which is never written.
const outFile = "out.js"

// sourceError holds the faults of one script.
type sourceError struct{ faults []problem.Fault }

func (e sourceError) Error() string { return fmt.Sprintf("the script has %d faults", len(e.faults)) }

// script bundles one script with everything it imports.
func script(dir, source string) (wire.Module, error) {
	seen := &imports{dir: dir, by: map[string]string{}}
	res := api.Build(options(dir, source, seen))
	if len(res.Errors) > 0 {
		return wire.Module{}, sourceError{seen.faults(source, res.Errors)}
	}
	m := wire.Module{Kind: wire.ModuleScript}
	for _, f := range res.OutputFiles {
		if strings.HasSuffix(f.Path, ".map") {
			m.SourceMap = f.Contents
		} else {
			m.Code = f.Contents
		}
	}
	if len(m.Code) > maxScriptBytes {
		return wire.Module{}, fmt.Errorf("%w: with what it imports it is %d bytes, at most %d are allowed", errTooLarge, len(m.Code), maxScriptBytes)
	}
	has, err := hasHandler(res.Metafile)
	if err != nil {
		return wire.Module{}, err
	}
	if !has {
		return wire.Module{}, sourceError{[]problem.Fault{{
			File: path.Clean(source), Detail: "it has no default export; begin the handler with `export default function (event, ctx) {`",
		}}}
	}
	return m, nil
}

func options(dir, source string, seen *imports) api.BuildOptions {
	o := api.BuildOptions{
		EntryPoints: []string{"./" + source}, AbsWorkingDir: dir, Outfile: outFile,
		Bundle: true, Write: false, Metafile: true, LogLevel: api.LogLevelSilent,
		Format: api.FormatESModule,
		Target: api.ES2024, // what the cell's engine runs; what is newer is rewritten
		// A cell has what browsers and their workers have in common, so a package's build for these is the one
		// that runs here, with what it has instead of Node's modules; its build for Node is not.
		Platform: api.PlatformBrowser, MainFields: []string{"browser", "module", "main"}, Conditions: []string{"worker", "module"},
		// Packages ask for it, and there is no process in a cell.
		Define:      map[string]string{"process.env.NODE_ENV": `"production"`},
		TreeShaking: api.TreeShakingTrue, LegalComments: api.LegalCommentsNone,
		Sourcemap: api.SourceMapExternal, SourcesContent: api.SourcesContentExclude,
		Plugins: []api.Plugin{seen.plugin(), inside(dir)},
	}
	// Left alone, esbuild looks for a tsconfig.json in every folder up to the root of the file system.
	name := filepath.Join(dir, "tsconfig.json")
	if _, err := within(dir, name); err == nil {
		o.Tsconfig = name
	} else {
		o.TsconfigRaw = "{}"
	}
	return o
}

// hasHandler reports whether the bundled script exports something as default.
func hasHandler(metafile string) (bool, error) {
	var meta struct {
		Outputs map[string]struct {
			Exports []string `json:"exports"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal([]byte(metafile), &meta); err != nil {
		return false, fmt.Errorf("read what the bundler made: %w", err)
	}
	return slices.Contains(meta.Outputs[outFile].Exports, "default"), nil
}

// within returns the size of a file that is, all links followed, a regular one in dir, which has none.
func within(dir, file string) (size int64, err error) {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return 0, err
	}
	if rel, err := filepath.Rel(dir, real); err != nil || !filepath.IsLocal(rel) {
		return 0, fmt.Errorf("%s is outside the app's folder; copy it into the folder", filepath.Base(file))
	}
	st, err := os.Stat(real)
	if err == nil && !st.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// inside is the plugin that keeps imports in the app's folder.
func inside(dir string) api.Plugin {
	var total atomic.Int64
	return api.Plugin{Name: "inside", Setup: func(build api.PluginBuild) {
		build.OnResolve(api.OnResolveOptions{Filter: `^(https?:|//)`}, func(args api.OnResolveArgs) (api.OnResolveResult, error) {
			return api.OnResolveResult{}, fmt.Errorf("%q: nothing is imported from the network; put the file into the app's folder", args.Path)
		})
		build.OnLoad(api.OnLoadOptions{Filter: ".*", Namespace: "file"}, func(args api.OnLoadArgs) (api.OnLoadResult, error) {
			size, err := within(dir, args.Path)
			if err != nil {
				return api.OnLoadResult{}, errors.New(reason(err))
			}
			if total.Add(size) > maxInputBytes {
				return api.OnLoadResult{}, fmt.Errorf("%w: the files imported are more than %d bytes", errTooLarge, maxInputBytes)
			}
			return api.OnLoadResult{}, nil // the bundler's own way
		})
	}}
}

// imports notes which file imports which package, to say where what cannot be bundled comes from.
type imports struct {
	dir string
	mu  sync.Mutex
	by  map[string]string // the importing file, by package; of several, the first by name
}

// plugin notes the imports, and leaves them to the bundler.
func (s *imports) plugin() api.Plugin {
	return api.Plugin{Name: "imports", Setup: func(build api.PluginBuild) {
		build.OnResolve(api.OnResolveOptions{Filter: `^[^./]`}, func(args api.OnResolveArgs) (api.OnResolveResult, error) {
			importer, err := filepath.Rel(s.dir, args.Importer)
			if err == nil && args.Importer != "" {
				s.mu.Lock()
				defer s.mu.Unlock()
				name, file := packageOf(args.Path), filepath.ToSlash(importer)
				if before, ok := s.by[name]; !ok || file < before {
					s.by[name] = file
				}
			}
			return api.OnResolveResult{}, nil
		})
	}}
}

// packageOf returns the package of an import by name.
func packageOf(name string) string {
	first, rest, _ := strings.Cut(name, "/")
	if strings.HasPrefix(first, "@") {
		second, _, _ := strings.Cut(rest, "/")
		return first + "/" + second
	}
	return first
}

// packagesFolder is where packages are, in the app's folder or in another package.
const packagesFolder = "node_modules/"

// owner returns the package that a file is of, or nothing for a file of the app.
func owner(file string) string {
	at := strings.LastIndex(file, packagesFolder)
	if at < 0 {
		return ""
	}
	return packageOf(file[at+len(packagesFolder):])
}

// way says how the app comes to a package: "f.ts imports a, which imports b". Packages may import each other in
// circles.
func (s *imports) way(name string) string {
	var steps []string
	for range len(s.by) {
		importer, ok := s.by[name]
		if !ok {
			break
		}
		from := owner(importer)
		if from == "" {
			steps = append(steps, importer+" imports "+name)
			break
		}
		steps = append(steps, "which imports "+name)
		name = from
	}
	slices.Reverse(steps)
	return strings.Join(steps, ", ")
}

// unresolved finds the name in esbuild's message about an import that is not there.
var unresolved = regexp.MustCompile(`^Could not resolve "([^"]*)"`)

// nodeModules are the names of Node's modules. They are asked for only when there is no package of that
// name in node_modules.
const nodeModules = `assert async_hooks buffer child_process cluster console constants crypto dgram diagnostics_channel dns
	domain events fs http http2 https inspector module net os path perf_hooks process punycode querystring readline repl stream
	string_decoder sys timers tls trace_events tty url util v8 vm wasi worker_threads zlib`

// faults turns esbuild's messages into places in the author's files.
func (s *imports) faults(source string, messages []api.Message) []problem.Fault {
	var out []problem.Fault
	for _, m := range messages {
		f := problem.Fault{File: path.Clean(source), Detail: m.Text}
		if l := m.Location; l != nil {
			f.File, f.Line = filepath.ToSlash(l.File), l.Line
			place(&f, l)
		}
		if found := unresolved.FindStringSubmatch(m.Text); found != nil {
			f.Detail = s.missing(found[1], f.File)
		}
		out = append(out, f)
	}
	return out
}

// missing says that an import in a file is not there, and what to do.
func (s *imports) missing(name, file string) string {
	first := packageOf(name)
	bare, isNode := strings.CutPrefix(first, "node:")
	switch {
	case isNode, slices.Contains(strings.Fields(nodeModules), bare):
		return fmt.Sprintf("%q: %s", name, s.noNode(owner(file)))
	case strings.HasPrefix(name, ".") || strings.HasPrefix(name, "/"):
		return fmt.Sprintf("%q: there is no such file", name)
	}
	command := "npm install " + first
	if s.wanted(first) || owner(file) != "" {
		command = "npm install"
	}
	return fmt.Sprintf("%q: there is no such package in the app's node_modules; run `%s` in the app's folder", name, command)
}

// noNode says why a module of Node's is not there, and what to do, when it is wanted by a package or, without
// one, by the app itself.
func (s *imports) noNode(by string) string {
	if by == "" {
		return "functions run in a sandbox without Node's modules; they have what the web has (URL, crypto, TextEncoder), and " +
			"what a function may reach is a grant in app.toml"
	}
	return fmt.Sprintf("functions run in a sandbox without Node's modules, and the package %s needs this one (%s); use a package, or an entry of this one, that is made for browsers or workers",
		by, s.way(by))
}

// wanted reports whether the app's package.json names a package.
func (s *imports) wanted(name string) bool {
	var file struct {
		Dependencies    map[string]jsontext.Value `json:"dependencies"`
		DevDependencies map[string]jsontext.Value `json:"devDependencies"`
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return false // and then nothing else could be read either
	}
	defer func() { _ = root.Close() }() // it was only read from
	text, err := read(root, "package.json", maxPackageBytes)
	if err != nil || json.Unmarshal(text, &file) != nil {
		return false
	}
	return file.Dependencies[name] != nil || file.DevDependencies[name] != nil
}

// maxPackageBytes bounds a package.json; large ones have some hundred lines.
const maxPackageBytes = 1 << 20

// maxSource bounds, in characters, the line that is shown with a fault: bundled packages are one line.
const maxSource = 400

// place sets column, length and source of a fault; esbuild counts bytes.
func place(f *problem.Fault, l *api.Location) {
	at := min(l.Column, len(l.LineText))
	end := min(at+max(l.Length, 1), len(l.LineText))
	f.Column = utf8.RuneCountInString(l.LineText[:at]) + 1
	f.Length = max(1, utf8.RuneCountInString(l.LineText[at:end]))
	if utf8.RuneCountInString(l.LineText) <= maxSource {
		f.Source = l.LineText
	}
}
