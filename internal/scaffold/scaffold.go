// Package scaffold makes the folder of a new app: what `sallyport init` writes. It refuses to touch a
// folder that has anything in it, so it never overwrites work. What it writes can be applied as it is.
// Caller: cli.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
	js "sallyport/sdk/js"
)

//go:embed template
var template embed.FS

// nameMark stands for the app's name in the template.
const nameMark = "APP-NAME"

// file is a file to write; its name has slashes.
type file struct{ name, text string }

// Write makes the folder dir with an app named after it, and returns the files in it. An error before
// the first file is a problem; nothing was changed then.
func Write(dir string) ([]string, error) {
	dir = filepath.Clean(dir) // what is looked at is what is written to: "new/.." is there, though "new" is not
	name, err := appName(dir)
	if err != nil {
		return nil, err
	}
	if err := checkEmpty(dir); err != nil {
		return nil, err
	}
	files, err := filesOf(name)
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
func filesOf(name ident.AppName) ([]file, error) {
	var files []file
	err := fs.WalkDir(template, "template", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := template.ReadFile(path)
		rel := strings.TrimPrefix(path, "template/")
		if rel == "gitignore" { // with its dot it would count in this repository
			rel = ".gitignore"
		}
		files = append(files, file{rel, strings.ReplaceAll(string(text), nameMark, string(name))})
		return err
	})
	return append(files, file{"sallyport.d.ts", js.Types}), err
}

// writeNew writes a file that MUST NOT be there yet.
func writeNew(path, text string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteString(text)
	return err
}
