package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dials are what opens connections.
var dials = map[string][]string{
	"net":  {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer"},
	"tls":  {"Dial", "DialWithDialer", "Dialer"},
	"http": {"Client", "Transport", "DefaultClient", "DefaultTransport", "Get", "Post", "PostForm", "Head"},
}

// mayDial are those that open connections: to the world outside by one package alone (decisions/0010); the others reach what
// their user names, or this machine.
var mayDial = map[string]string{
	"internal/outbound":         "the world outside",
	"client":                    "the server that the user of the command line names",
	"internal/server/notify.go": "the service manager's Unix socket",
}

// TestOneDialer holds every other file of the product to opening no connection.
func TestOneDialer(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	files := 0
	for _, root := range []string{"../internal", "../client", "../cmd"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel := filepath.ToSlash(strings.TrimPrefix(path, "../"))
			if d.IsDir() && (rel == "internal/testkit" || d.Name() == "testdata") {
				return fs.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			files++
			ast.Inspect(file, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := s.X.(*ast.Ident); ok && slices.Contains(dials[x.Name], s.Sel.Name) {
					for _, who := range []string{rel, filepath.ToSlash(filepath.Dir(rel))} {
						if mayDial[who] != "" {
							used[who] = true
							return true
						}
					}
					t.Errorf("%s uses %s.%s: connections are opened by internal/outbound", rel, x.Name, s.Sel.Name)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 50 {
		t.Fatalf("found only %d files: the gate is looking in the wrong place", files)
	}
	for who := range mayDial {
		if !used[who] {
			t.Errorf("%s may dial, and does not: take it off the list", who)
		}
	}
}
