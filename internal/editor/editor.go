// Package editor makes of an app.toml what editors are told about it: the types, in TypeScript, of what each function finds in its context. It is
// pure, and decides nothing: what a function may do is decided by the server. Caller: cli.
package editor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/manifest/urltemplate"
	js "sallyport/sdk/js"
)

// The files of types in an app's folder: TypesName says what its app.toml gives to functions, and builds on what SDKName says of all functions.
const (
	TypesName = "app.types.d.ts"
	SDKName   = "sallyport.d.ts"
)

const head = `// The types of what app.toml gives to its functions. Do not change this file: "sallyport dev" and
// "sallyport function types" write it anew.
//
//     import type { Handler } from "./app.types"
//     const handle: Handler<"NAME"> = async (event, ctx) => …
`

const handler = `
/** Handles the events of a function of app.toml: its grants and the types it publishes are known by their names. */
export type Handler<Name extends keyof Functions, Data = any> = (
  event: Event<Data>,
  ctx: Context<Functions[Name]["grants"], Functions[Name]["publishes"]>,
) => unknown;
`

// File is a file for an app's folder.
type File struct{ Name, Text string }

// Files returns the files of types of an app.
func Files(app *manifest.App) []File {
	return []File{{SDKName, js.Types}, {TypesName, Types(app)}}
}

// Types returns the text of TypesName.
func Types(app *manifest.App) string {
	var body strings.Builder
	used := map[string]bool{"Context": true, "Event": true}
	body.WriteString("\nexport interface Functions {\n")
	for _, name := range slices.Sorted(maps.Keys(app.Functions)) {
		writeFunction(&body, name, app.Functions[name].Grants, used)
	}
	body.WriteString("}\n")
	return head + "\nimport type { " + strings.Join(slices.Sorted(maps.Keys(used)), ", ") + " } from \"./sallyport\";\n" + body.String() + handler
}

func writeFunction(to *strings.Builder, name ident.FunctionName, grants map[string]manifest.Grant, used map[string]bool) {
	var published []string
	fmt.Fprintf(to, "  %s: {\n    readonly grants: {\n", quote(string(name)))
	for _, grantName := range slices.Sorted(maps.Keys(grants)) {
		g := grants[grantName]
		if g.Kind() == manifest.KindPublish {
			for _, t := range g.Publish {
				published = append(published, string(t))
			}
			continue
		}
		about, of := describe(&g)
		used[of.name] = true
		for _, needs := range of.needs {
			used[needs] = true
		}
		fmt.Fprintf(to, "      /** %s */\n      readonly %s: %s;\n", comment(about), quote(grantName), of)
	}
	slices.Sort(published)
	fmt.Fprintf(to, "    };\n    readonly publishes: %s;\n  };\n", union(slices.Compact(published)))
}

// named is a type with what it is applied to, and the other types that this needs.
type named struct {
	name      string
	arguments []string
	needs     []string
}

func (n named) String() string {
	if len(n.arguments) == 0 {
		return n.name
	}
	return n.name + "<" + strings.Join(n.arguments, ", ") + ">"
}

// describe returns a sentence about a grant that is used while a function runs, and its type.
func describe(g *manifest.Grant) (about string, of named) {
	switch {
	case g.HTTP != nil:
		return strings.Join(g.HTTP.Methods, ", ") + " " + g.HTTP.URL, httpType(g.HTTP)
	case g.SQL != nil:
		return "Statements on a database.", sqlType(g.SQL)
	case g.KV != nil && g.KV.ReadOnly:
		return "Reads values of " + g.KV.Bucket + ".", named{name: "KVReader"}
	case g.KV != nil:
		return "Values in " + g.KV.Bucket + ".", named{name: "KVGrant"}
	case g.Blob != nil && g.Blob.ReadOnly:
		return "Reads objects of " + g.Blob.Bucket + ".", named{name: "BlobReader"}
	case g.Blob != nil:
		return "Objects in " + g.Blob.Bucket + ".", named{name: "BlobGrant"}
	case g.Secret != nil:
		return "The value of " + g.Secret.Ref.String() + ".", named{name: "SecretGrant"}
	case g.Invoke != nil:
		return "Calls the function " + string(g.Invoke.Function) + ".", named{name: "InvokeGrant"}
	case g.Identity != nil:
		return "Tokens for " + g.Identity.Audience + ".", named{name: "IdentityGrant"}
	}
	return "A grant of kind " + g.Kind() + ".", named{name: "Grant"}
}

// httpType knows the methods, the values of the template and what may be added to the query.
func httpType(g *manifest.HTTPGrant) named {
	values := "string"
	if template, err := urltemplate.Parse(g.URL); err == nil { // the manifest was parsed, so it is one
		values = union(template.Names)
	}
	query := union(g.AllowQuery)
	if slices.Contains(g.AllowQuery, "*") {
		query = "string"
	}
	return named{name: "HttpGrant", arguments: []string{union(g.Methods), values, query}}
}

// sqlType knows the statements, and how many parameters each has.
func sqlType(g *manifest.SQLGrant) named {
	var text strings.Builder
	text.WriteString("{\n")
	needs := []string(nil)
	for _, name := range slices.Sorted(maps.Keys(g.Queries)) {
		q := g.Queries[name]
		parameters := make([]string, q.Params)
		for i := range parameters {
			parameters[i] = "$" + strconv.Itoa(i+1) + ": SQLValue"
			needs = []string{"SQLValue"}
		}
		fmt.Fprintf(&text, "        /** %s */\n        %s: [%s];\n", comment(q.Text), quote(name), strings.Join(parameters, ", "))
	}
	text.WriteString("      }")
	return named{name: "SQLGrant", arguments: []string{text.String()}, needs: needs}
}

// union returns the type of one of some texts.
func union(texts []string) string {
	if len(texts) == 0 {
		return "never"
	}
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = quote(t)
	}
	return strings.Join(quoted, " | ")
}

// quote returns a text as TypeScript writes it, which for well-formed texts is how JSON does.
func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic("BUG: a text of a manifest cannot be written: " + err.Error())
	}
	return string(text)
}

// comment makes of a text one line that stays within its comment.
func comment(s string) string {
	const most = 200
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return strings.ReplaceAll(s, "*/", "* /")
}
