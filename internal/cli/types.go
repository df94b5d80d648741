package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/internal/bundle"
	"sallyport/internal/editor"
)

func (a *app) typesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "types [DIR]", Short: "Write the types of an app's functions, for editors",
		Long: "Write what app.toml in DIR (default: this folder) gives to its functions as TypeScript types, " + editor.TypesName + ": an editor then knows the\n" +
			"grants, statements and event types of each function by their names. `dev` keeps the file up to date once it is there. No server is needed.",
		Example: "  sallyport function types\n  sallyport function types ./webshop",
		Args:    atMostOne("one folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := folder(args)
			app, err := bundle.Manifest(dir)
			if err != nil {
				return inFolder(err, dir)
			}
			var written []string
			for _, f := range editor.Files(app) {
				if err := replaceFile(dir, f.Name, f.Text); err != nil {
					return err
				}
				written = append(written, filepath.Join(dir, f.Name))
			}
			return showEach(a, written, written, func(w io.Writer) {
				for _, f := range written {
					fmt.Fprintln(w, clean(f))
				}
			})
		},
	}
}

// refreshTypes writes the types of an app anew when they are there, and are not those of its manifest. A manifest with faults changes nothing; who
// applies it hears of them.
func refreshTypes(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, editor.TypesName)); err != nil {
		return nil //nolint:nilerr // nobody asked for them
	}
	app, err := bundle.Manifest(dir)
	if err != nil {
		return nil //nolint:nilerr // it is told elsewhere
	}
	for _, f := range editor.Files(app) {
		if err := replaceFile(dir, f.Name, f.Text); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile writes a file in a folder unless it has that text. It replaces a symbolic link, and does not follow one: the app may come from elsewhere.
func replaceFile(dir, name, text string) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if st, err := root.Lstat(name); err == nil && st.Mode().IsRegular() && st.Size() == int64(len(text)) {
		if there, err := root.ReadFile(name); err == nil && string(there) == text {
			return nil
		}
	}
	temporary := "." + name + "-" + rand.Text()
	if err := root.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return errors.Join(err, ignoreMissing(root.Remove(temporary)))
	}
	if err := root.Rename(temporary, name); err != nil {
		return errors.Join(err, root.Remove(temporary))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
