package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/internal/ident"
	"sallyport/internal/policy/iam"
	"sallyport/internal/problem"
)

func (a *app) policyImport() *cobra.Command {
	return group("import", "Turn policies of other systems into Cedar", a.policyImportIAM())
}

type importFlags struct {
	out, prefix, attached string
	principals            []string
	public                bool
}

func (a *app) policyImportIAM() *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use: "iam FILE.json", Short: "Turn an AWS IAM policy into policies of a namespace, without a server",
		Args: exactly(1, "one file with an IAM policy; - is stdin"),
		Long: `Turn an AWS IAM policy into policies of a namespace: the Cedar text goes to stdout or, with --out, to a new file. An Allow only ever
becomes narrower and a Deny wider. A statement that cannot be carried over so is refused, and named on stderr with the reason
and its JSON pointer; when a Deny is refused, no Allow is carried over either. The exit code is 3 when anything was refused: what was
carried over is less than the policy allowed, so read it before you rely on it. Each file is taken on its own: when a Deny of one is refused,
do not use the Allows of the others that belong to the same principal.

Accounts and regions in ARNs are not looked at. IAM's principals are nobody here until you say who they are: --attached-to for a policy
without a Principal (a role becomes a group), --principal for each that a policy names.`,
		Example: `  sallyport policy import iam role.json --attached-to group:orders --namespace shop --out policies/orders-role.cedar
  sallyport policy import iam bucket.json --principal arn:aws:iam::123456789012:user/ann=user:ann
  aws iam get-role-policy … --query PolicyDocument | sallyport policy import iam - --attached-to group:orders`,
		ValidArgsFunction: cobra.FixedCompletions([]cobra.Completion{"json"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE:              func(_ *cobra.Command, args []string) error { return a.importIAM(args[0], &f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.out, "out", "", "write the policies to this new `file`")
	flags.StringVar(&f.attached, "attached-to", "", "whom the policy is attached to: group:ID, user:ID, service:ID or token:ID")
	flags.StringArrayVar(&f.principals, "principal", nil, "who one of its principals is here, such as ARN=user:ann; repeatable")
	flags.StringVar(&f.prefix, "id-prefix", "", "what the @id of each policy begins with (default: the name of the file)")
	flags.BoolVar(&f.public, "allow-public", false, `carry over an Allow for everybody ("*") too`)
	return c
}

// imported is what policy import answers.
type imported struct {
	Namespace string `json:"namespace"`
	// Policies are the Cedar text; File is where it was written, if it was.
	Policies string         `json:"policies"`
	File     string         `json:"file,omitempty"`
	Members  []string       `json:"members,omitempty"`
	Refused  []importedNote `json:"refused,omitempty"`
	Warnings []importedNote `json:"warnings,omitempty"`
}

// importedNote is something about a statement.
type importedNote struct {
	Sid     string `json:"sid,omitempty"`
	Pointer string `json:"pointer"`
	Reason  string `json:"reason"`
}

func (a *app) importIAM(file string, f *importFlags) error {
	of, err := a.policiesOf(false)
	if err != nil {
		return err
	}
	o, err := f.options(file)
	if err != nil {
		return err
	}
	o.Namespace = ident.Namespace(of)
	name, text, err := a.readIAM(file)
	if err != nil {
		return err
	}
	r, err := iam.Import(name, text, o)
	if err != nil {
		return err
	}
	out := imported{
		Namespace: string(of), Policies: string(r.Text), Refused: notes(r.Refused), Warnings: notes(r.Warnings),
	}
	for _, m := range r.Members {
		out.Members = append(out.Members, strings.ToLower(m.Kind)+":"+m.ID)
	}
	if f.out != "" && len(r.Text) > 0 {
		if err := writeNew(f.out, r.Text); err != nil {
			return err
		}
		out.File = f.out
	}
	return a.showImported(name, &out)
}

// readIAM reads the file, or stdin, and returns its name for messages.
func (a *app) readIAM(file string) (name string, text []byte, err error) {
	if file == "-" {
		text, err = readAll(a.env.Stdin, "stdin", iam.MaxBytes)
		return "stdin", text, err
	}
	text, err = readBounded(file, iam.MaxBytes)
	return filepath.ToSlash(file), text, err
}

// idPrefix is what the @id of a policy may begin with; a number follows.
var idPrefix = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,80}$`)

// options returns what the flags say.
func (f *importFlags) options(file string) (o iam.Options, err error) {
	o = iam.Options{Prefix: f.prefix, AllowPublic: f.public, Principals: map[string]iam.Ref{}}
	if base := strings.TrimSuffix(filepath.Base(file), ".json"); o.Prefix == "" && file != "-" && idPrefix.MatchString(base) {
		o.Prefix = base
	}
	if o.Prefix != "" && !idPrefix.MatchString(o.Prefix) {
		return o, usage("--id-prefix wants 1 to 80 letters, digits, hyphens, dots and underscores")
	}
	if f.attached != "" {
		ref, ok := parseRef(f.attached)
		if !ok {
			return o, usage("--attached-to wants group:ID, user:ID, service:ID or token:ID, not %q", clean(f.attached))
		}
		o.Attached = &ref
	}
	for _, p := range f.principals {
		m := principalFlag.FindStringSubmatch(p)
		if m == nil {
			return o, usage("--principal wants such as arn:aws:iam::123456789012:user/ann=user:ann, not %q", clean(p))
		}
		if _, twice := o.Principals[m[1]]; twice {
			return o, usage("--principal %s is given twice", clean(m[1]))
		}
		o.Principals[m[1]], _ = parseRef(m[2]) // the expression holds its form
	}
	return o, nil
}

// principalFlag splits at the first "=" before a reference: the names of IAM may have one in them.
var principalFlag = regexp.MustCompile(`^(.+?)=((?:group|user|service|token):.+)$`)

// parseRef parses a principal or group, such as "group:orders".
func parseRef(s string) (iam.Ref, bool) {
	word, id, _ := strings.Cut(s, ":")
	kind, known := map[string]string{"group": "Group", "user": "User", "service": "Service", "token": "Token"}[word]
	return iam.Ref{Kind: kind, ID: id}, known && id != ""
}

func notes(list []iam.Note) []importedNote {
	var out []importedNote
	for _, n := range list {
		out = append(out, importedNote(n))
	}
	return out
}

// writeNew writes a file that MUST NOT be there yet.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("make the file of policies: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// showImported prints the policies, and says on stderr what else a person must know.
func (a *app) showImported(name string, out *imported) error {
	if err := a.show(out, func(w io.Writer) {
		if out.File == "" {
			fmt.Fprint(w, out.Policies)
		}
	}); err != nil {
		return err
	}
	for _, n := range out.Warnings {
		a.say("warning: %s %s: %s", clean(name), clean(n.Pointer), clean(n.detail()))
	}
	for _, m := range out.Members {
		a.say("member: %s may assume the role, so it belongs in its group", clean(m))
	}
	switch {
	case out.Policies == "":
		a.say("no policies came of it")
	case out.File != "":
		a.say("the policies of the namespace %s are in %s\nnext: sallyport policy validate %[2]s", clean(out.Namespace), clean(out.File))
	}
	if len(out.Refused) == 0 {
		return nil
	}
	faults := make([]problem.Fault, len(out.Refused))
	for i, n := range out.Refused {
		faults[i] = problem.Fault{File: name, Pointer: n.Pointer, Detail: n.detail()}
	}
	return a.found(problem.New(problem.Invalid, "cli.import_refused", "not all of %s could be carried over", name).WithFaults(faults...))
}

// detail is the reason, with the statement's own name.
func (n *importedNote) detail() string {
	if n.Sid == "" {
		return n.Reason
	}
	return n.Reason + " (" + n.Sid + ")"
}
