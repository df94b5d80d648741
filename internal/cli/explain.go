package cli

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/internal/problem"
)

// explanation is what explain answers.
type explanation struct {
	Code    string `json:"code"`
	Title   string `json:"title"`
	Explain string `json:"explain"`
}

// explanations returns all of them, in order of code.
func explanations() ([]explanation, error) {
	entries, err := api.Problems()
	if err != nil {
		return nil, err
	}
	out := make([]explanation, len(entries))
	for i, e := range entries {
		out[i] = explanation{Code: e.Code, Title: e.Title, Explain: strings.TrimSpace(e.Explain)}
	}
	return out, nil
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain [CODE]", Short: "Explain a problem code, or list them all, or those of an area", Args: atMostOne("one problem code"),
		Long:    "Explain a problem code: what it means, its usual cause, what to do. Every error names its code in brackets.",
		Example: "  sallyport explain event.schema_violation\n  sallyport explain fetch\n  sallyport explain -o ndjson",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var codes []cobra.Completion
			if all, err := explanations(); err == nil {
				for _, p := range all {
					codes = append(codes, p.Code)
				}
			}
			return codes, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := explanations()
			if err != nil {
				return err
			}
			if len(args) == 1 { // an area is what stands before the dot
				if area := inArea(all, args[0]); len(area) > 0 {
					all, args = area, nil
				}
			}
			if len(args) == 0 {
				return showList(a, all, all, table[explanation]{
					noun: "problem codes", header: []string{"CODE", "TITLE"},
					row: func(p *explanation) []string { return []string{p.Code, p.Title} },
					id:  func(p *explanation) string { return p.Code },
				})
			}
			i := slices.IndexFunc(all, func(p explanation) bool { return p.Code == args[0] })
			if i < 0 {
				return problem.New(problem.NotFound, "cli.unknown_code", "there is no problem code %q", args[0]).
					WithHint("%s", nearCode(all, args[0]))
			}
			p := all[i]
			return a.show(p, func(w io.Writer) {
				fmt.Fprintf(w, "%s\n%s\n\n%s\n", p.Code, p.Title, p.Explain)
			})
		},
	}
}

// inArea returns the codes of an area, such as "fetch".
func inArea(all []explanation, area string) []explanation {
	var in []explanation
	for _, p := range all {
		if strings.HasPrefix(p.Code, area+".") {
			in = append(in, p)
		}
	}
	return in
}

// nearCode suggests the code that s is a misspelling of, or that shares the most with it.
func nearCode(all []explanation, s string) string {
	if near := problem.Nearest(s, func(yield func(string) bool) {
		for _, p := range all {
			if !yield(p.Code) {
				return
			}
		}
	}); near != "" {
		return fmt.Sprintf("did you mean %s? list them all with `sallyport explain`", near)
	}
	shared := func(code string) int {
		n := 0
		for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == '.' || r == '_' }) {
			if strings.Contains(code, word) {
				n++
			}
		}
		return n
	}
	best := slices.MaxFunc(all, func(x, y explanation) int { return cmp.Compare(shared(x.Code), shared(y.Code)) })
	if shared(best.Code) == 0 {
		return "list them all with `sallyport explain`"
	}
	return fmt.Sprintf("did you mean %s? list them all with `sallyport explain`", best.Code)
}

type versionText struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments(),
		Example: "  sallyport version\n  sallyport version -o json",
		RunE: func(*cobra.Command, []string) error {
			v := versionText{Version: a.env.Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
			return a.show(v, func(w io.Writer) { fmt.Fprintf(w, "sallyport %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch) })
		},
	}
}
