// Package scaffold makes the folder of a new app: what `sallyport init` writes. It refuses to touch a
// folder that has anything in it, so it never overwrites work. What it writes can be applied as it is, once what is compiled is built.
// Caller: cli.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/sdk"
	js "sallyport/sdk/js"
)

//go:embed template
var template embed.FS

// languages has the files of each language but TypeScript, whose are in the template. Those that mean something to Go's tools here
// have ".txt" behind their names.
//
//go:embed languages
var languages embed.FS

// Language is what the function of a new app is written in.
type Language string

// The languages.
const (
	TypeScript Language = "typescript"
	Go         Language = "go"
	Rust       Language = "rust"
	C          Language = "c"
)

// Languages returns all of them.
func Languages() []Language { return []Language{TypeScript, Go, Rust, C} }

// Built reports whether the function has to be built before it runs, which the file build does.
func (l Language) Built() bool { return l != TypeScript }

// nameMark stands for the app's name in the template.
const nameMark = "APP-NAME"

// file is a file to write; its name has slashes.
type file struct{ name, text string }

// buildName is the file that builds a function.
const buildName = "build"

// Write makes the folder dir with an app named after it, and returns the files in it. An error before
// the first file is a problem; nothing was changed then.
func Write(dir string, language Language) ([]string, error) {
	dir = filepath.Clean(dir) // what is looked at is what is written to: "new/.." is there, though "new" is not
	name, err := appName(dir)
	if err != nil {
		return nil, err
	}
	if err := checkEmpty(dir); err != nil {
		return nil, err
	}
	files, err := filesOf(name, language)
	if err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	var written []string
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := writeNew(path, f.text); err != nil {
			return written, fmt.Errorf("make the app's folder: %w", err)
		}
		written = append(written, path)
	}
	return written, nil
}

// appName returns the name of the app in dir: that of the folder.
func appName(dir string) (ident.AppName, error) {
	abs, err := filepath.Abs(dir) // so that "." has a name too
	if err != nil {
		return "", fmt.Errorf("find the folder: %w", err)
	}
	name, err := ident.ParseAppName(filepath.Base(abs))
	if err != nil {
		return "", problem.New(problem.Invalid, "scaffold.bad_name", "%q cannot be the name of an app", filepath.Base(abs)).
			WithHint("use lower-case letters, digits and inner hyphens, beginning with a letter")
	}
	return name, nil
}

func checkEmpty(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at %s: %w", dir, err)
	case !st.IsDir():
		return notEmpty("%s is a file, and was not changed", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return notEmpty("the folder %s is not empty, and nothing in it was changed", dir)
	}
	return nil
}

func notEmpty(format string, dir string) error {
	return problem.New(problem.Conflict, "scaffold.not_empty", format, dir).WithHint("choose another name, or an empty folder")
}

// filesOf returns the files of a new app.
func filesOf(name ident.AppName, language Language) ([]file, error) {
	files, err := read(template, "template")
	if err != nil {
		return nil, err
	}
	if language == TypeScript {
		files = append(files, file{"sallyport.d.ts", js.Types})
	} else {
		files = slices.DeleteFunc(files, func(f file) bool { return strings.HasSuffix(f.name, ".ts") || f.name == "tsconfig.json" })
		for i := range files {
			switch f := &files[i]; f.name {
			case "app.toml":
				f.text = strings.Replace(f.text, `"hello.ts"`, `"hello.wasm" # ./build makes it`, 1)
			case ".gitignore":
				f.text += "hello.wasm\n"
			}
		}
		own, err := read(languages, "languages/"+string(language))
		if err != nil {
			return nil, err
		}
		library, err := libraryOf(language)
		if err != nil {
			return nil, err
		}
		files = append(append(files, own...), library...)
	}
	for i := range files {
		files[i].text = strings.ReplaceAll(files[i].text, nameMark, string(name))
	}
	return files, nil
}

// read returns the files below a folder of those that are embedded.
func read(from fs.FS, dir string) ([]file, error) {
	var files []file
	err := fs.WalkDir(from, dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(from, path)
		rel := strings.TrimSuffix(strings.TrimPrefix(path, dir+"/"), ".txt")
		if rel == "gitignore" { // with its dot it would count in this repository
			rel = ".gitignore"
		}
		if rel == "sallyport.mod" { // of the module that the SDK is in; another go.mod would make the folder a module here
			rel = "sallyport/go.mod"
		}
		files = append(files, file{rel, string(text)})
		return err
	})
	return files, err
}

// libraryOf returns the SDK of a language, without its tests: the function is built from this folder alone.
func libraryOf(language Language) ([]file, error) {
	files, err := read(sdk.Files, string(language))
	files = slices.DeleteFunc(files, func(f file) bool { return strings.HasSuffix(f.name, "_test.go") })
	for i := range files {
		f := &files[i]
		switch language {
		case Go:
			f.name = "sallyport/sdk/go/" + f.name
		case Rust:
			f.name = "sallyport/" + f.name
			f.text = strings.Replace(f.text, `license-file = "../../LICENSE"`, `license = "Apache-2.0"`, 1)
		case C, TypeScript:
		}
	}
	return files, err
}

// writeNew writes a file that MUST NOT be there yet.
func writeNew(path, text string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if filepath.Base(path) == buildName {
		mode = 0o755
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteString(text)
	return err
}
