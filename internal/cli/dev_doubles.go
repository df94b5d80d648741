package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/spf13/pflag"

	"sallyport/internal/grant/double"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// allGrants is the value of --capture without one.
const allGrants = "*"

// doubleFlags say what stands in for what grants reach.
type doubleFlags struct {
	capture, fixtures []string
	record            bool

	read []*testFile // the files of fixtures, once devDoubles has read them
}

func (f *doubleFlags) flags(set *pflag.FlagSet) {
	set.StringSliceVar(&f.capture, "capture", nil, "carry out nothing that `grants` would change, send or reveal: of all, or with --capture=NAME,… of these")
	set.Lookup("capture").NoOptDefVal = allGrants
	set.StringSliceVar(&f.fixtures, "fixtures", nil, "`files` with answers for uses of grants (*.fixtures.toml)")
	set.BoolVar(&f.record, "record", false, "write what grants answer to NAME.fixtures.toml in the app's folder")
}

func (f *doubleFlags) captures(grant string) bool {
	return slices.Contains(f.capture, allGrants) || slices.Contains(f.capture, grant)
}

// devDoubles returns what stands in for what the app's grants reach; nil when nothing does.
func (a *app) devDoubles(dir string, f *doubleFlags) (*double.Stand, error) {
	switch {
	case f.record && len(f.capture) > 0:
		return nil, usage("--record writes down what grants really answer, and --capture keeps them from it: one of them")
	case !f.record && len(f.capture)+len(f.fixtures) == 0:
		return nil, nil
	}
	shared := map[ident.FunctionName][]manifest.Double{}
	answered := map[string]bool{}
	for _, file := range f.fixtures {
		t, err := readFixtures(file)
		if err != nil {
			return nil, err
		}
		f.read = append(f.read, &testFile{name: file, FunctionTests: t})
		shared[t.Function] = append(shared[t.Function], t.Doubles...)
		for _, d := range t.Doubles {
			answered[d.Grant] = true
		}
	}
	cfg := double.Config{
		Takes:    func(grant string) bool { return f.record || f.captures(grant) || answered[grant] },
		CarryOut: func(grant string, effect bool) bool { return !effect || !f.captures(grant) },
		Told:     a.tellUse,
	}
	if f.record {
		r := &recorder{app: a, dir: dir, files: map[string]*recording{}}
		cfg.Recorded = r.add
	}
	stand := double.New(cfg)
	for function, list := range shared {
		stand.Share(function, list)
	}
	return stand, nil
}

// check refuses what names a function or a grant that the app has not. A misspelt grant would not be captured, and its effects would be real.
func (f *doubleFlags) check(m *manifest.App) error {
	used := map[string]bool{} // while a function runs
	for _, fn := range m.Functions {
		for name, g := range fn.Grants {
			used[name] = used[name] || g.Kind() != manifest.KindPublish
		}
	}
	maps.DeleteFunc(used, func(_ string, is bool) bool { return !is })
	for _, name := range f.capture {
		if name == allGrants || used[name] {
			continue
		}
		detail := "there is none"
		if near := problem.Nearest(name, maps.Keys(used)); near != "" {
			detail = fmt.Sprintf("did you mean %q?", near)
		} else if len(used) > 0 {
			detail = "there is " + strings.Join(slices.Sorted(maps.Keys(used)), ", ")
		}
		return usage("--capture=%s: no function of the app has a grant of that name that is used while it runs; %s", clean(name), clean(detail))
	}
	for _, t := range f.read {
		if err := t.check(m); err != nil {
			return err
		}
	}
	return nil
}

// tellDoubles says what stands in for what, so that nobody takes real effects for captured ones, or the other way round.
func (a *app) tellDoubles(f *doubleFlags) {
	switch {
	case f.record:
		a.say("recording what grants answer; they are carried out")
	case slices.Contains(f.capture, allGrants):
		a.say("capturing: no grant changes, sends or reveals anything")
	case len(f.capture) > 0:
		a.say("capturing %s: all other grants are carried out", clean(strings.Join(f.capture, ", ")))
	}
}

// tellUse shows a use that did not go through its door.
func (a *app) tellUse(u double.Use) {
	if u.Answered == double.ByDoor {
		return
	}
	line := "captured " + clean(u.Function) + " " + clean(useText(&u))
	if a.output != formText {
		text, err := json.Marshal(&u, json.Deterministic(true))
		if err != nil {
			a.say("show a use of a grant: %v", err)
			return
		}
		line = string(text)
	}
	fmt.Fprintln(a.env.Stdout, line) // one write: others write too
}

// recorder keeps the files of recorded answers.
type recorder struct {
	app *app
	dir string

	mu    sync.Mutex
	files map[string]*recording // by the name of the function
}

// recording is the file of one function.
type recording struct {
	text  []byte
	known map[string]bool // what is answered in it
	full  bool
}

// add writes a use down, unless the same was before: the first answer stays.
func (r *recorder) add(function string, d manifest.Double) {
	r.mu.Lock()
	defer r.mu.Unlock()
	file := filepath.Join(r.dir, function+manifest.FixtureFile)
	one := r.files[function]
	if one == nil {
		var err error
		if one, err = openRecording(file, function); err != nil {
			what, _ := classify(err)
			r.app.say("%s is not written to: %s", clean(file), clean(what.text))
			one = &recording{full: true}
		}
		r.files[function] = one
	}
	key := recordedAs(&d)
	if one.full || one.known[key] {
		return
	}
	text := manifest.AppendFixture(slices.Clone(one.text), &d)
	if len(one.known) >= manifest.MaxFixtures || len(text) > manifest.MaxBytes {
		one.full = true
		r.app.say("%s is full: no more is recorded of %s", clean(file), clean(function))
		return
	}
	if err := writePrivate(file, text); err != nil {
		r.app.say("record a use of %s: %v", clean(d.Grant), err)
		return
	}
	one.text, one.known[key] = text, true
	r.app.say("recorded %s: %s %s", clean(file), clean(d.Grant), clean(d.Op))
}

func recordedAs(d *manifest.Double) string {
	return strings.Join([]string{d.Grant, d.Op, string(d.Request)}, "\n")
}

// openRecording reads what was recorded before.
func openRecording(file, function string) (*recording, error) {
	r := &recording{known: map[string]bool{}}
	_, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		r.text = fmt.Appendf(nil, "# What the grants of %s answered in `sallyport dev --record`. It holds data of that run; secrets were taken out.\nfunction = %q\n", function, function)
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if r.text, err = readBounded(file, manifest.MaxBytes); err != nil {
		return nil, err
	}
	t, err := manifest.ParseFunctionTests(file, r.text, true)
	if err != nil {
		return nil, err
	}
	for i := range t.Doubles {
		r.known[recordedAs(&t.Doubles[i])] = true
	}
	return r, nil
}
