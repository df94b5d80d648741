// Package web holds what some functions that scripts have of the web platform are made of: URLs after the URL
// Standard, and text after the Encoding Standard. It is pure: no state, no I/O. Its input is hostile, so
// every function reads each byte a bounded number of times. Caller: js.
package web

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxURL bounds a URL in bytes: the time that parsing takes is in proportion, at most some milliseconds.
const MaxURL = 64 << 10

// URL is a URL as the URL Standard's parser leaves it: every part is ASCII.
type URL struct {
	scheme             string
	username, password string
	host               string
	hasHost            bool
	port               string
	path               []string
	opaquePath         string
	opaque             bool
	query, fragment    string
	hasQuery           bool
	hasFragment        bool
}

// Part is what a setter of URL sets.
type Part int32

// The parts. PartHref is the whole.
const (
	PartHref Part = iota
	PartProtocol
	PartUsername
	PartPassword
	PartHost
	PartHostname
	PartPort
	PartPathname
	PartSearch
	PartHash
)

// Resolve parses value, relative to base, or has it set a part of base. An empty base is none. It reports
// false when value, or base, is no URL or longer than MaxURL; a value that does not fit a part changes
// nothing. The texts MUST be valid UTF-8.
func Resolve(p Part, value, base string) (*URL, bool) {
	var b *URL
	if len(value) > MaxURL || len(base) > MaxURL {
		return nil, false
	}
	if base != "" {
		var ok bool
		if b, ok = parseURL(base, nil); !ok {
			return nil, false
		}
	}
	if p == PartHref {
		return parseURL(value, b)
	}
	if b == nil {
		return nil, false
	}
	if p != PartUsername && p != PartPassword {
		value = withoutNewlines(value)
	}
	b.set(p, value)
	return b, true
}

// offsets are Cuts with names.
type offsets struct {
	scheme, userStart, userEnd, passwordStart, passwordEnd int
	hostStart, hostEnd, portEnd, pathStart, pathEnd        int
	queryEnd                                               int
}

// Cuts are offsets in a serialised URL: where the scheme ends with its colon, where username and password
// begin and end, where the host begins and ends and the port ends, where the path begins and ends,
// and where the query ends.
type Cuts [11]int

// Serialise returns the URL as a string, which is ASCII, and where its parts are.
func (u *URL) Serialise() (string, Cuts) {
	var b strings.Builder
	var c offsets
	b.WriteString(u.scheme)
	b.WriteByte(':')
	c.scheme = b.Len()
	if u.hasHost {
		b.WriteString("//")
	}
	c.userStart = b.Len()
	b.WriteString(u.username)
	c.userEnd, c.passwordStart, c.passwordEnd = b.Len(), b.Len(), b.Len()
	if u.password != "" {
		b.WriteByte(':')
		c.passwordStart = b.Len()
		b.WriteString(u.password)
		c.passwordEnd = b.Len()
	}
	if u.username != "" || u.password != "" {
		b.WriteByte('@')
	}
	c.hostStart = b.Len()
	b.WriteString(u.host)
	c.hostEnd = b.Len()
	if u.port != "" {
		b.WriteByte(':')
		b.WriteString(u.port)
	}
	c.portEnd = b.Len()
	if !u.hasHost && !u.opaque && len(u.path) > 1 && u.path[0] == "" {
		b.WriteString("/.") // or else the path would be taken for a host
	}
	c.pathStart = b.Len()
	if u.opaque {
		b.WriteString(u.opaquePath)
	}
	for _, segment := range u.path {
		b.WriteByte('/')
		b.WriteString(segment)
	}
	c.pathEnd = b.Len()
	if u.hasQuery {
		b.WriteByte('?')
		b.WriteString(u.query)
	}
	c.queryEnd = b.Len()
	if u.hasFragment {
		b.WriteByte('#')
		b.WriteString(u.fragment)
	}
	return b.String(), Cuts{c.scheme, c.userStart, c.userEnd, c.passwordStart, c.passwordEnd, c.hostStart, c.hostEnd, c.portEnd, c.pathStart, c.pathEnd, c.queryEnd}
}

// defaultPort returns the port of a special scheme; ok is false for others, and file has none.
func defaultPort(scheme string) (port string, special bool) {
	switch scheme {
	case "http", "ws":
		return "80", true
	case "https", "wss":
		return "443", true
	case "ftp":
		return "21", true
	case "file":
		return "", true
	}
	return "", false
}

func (u *URL) special() bool {
	_, special := defaultPort(u.scheme)
	return special
}

// slash reports whether rest begins with what separates segments in u.
func (u *URL) slash(rest string) bool {
	return strings.HasPrefix(rest, "/") || u.special() && strings.HasPrefix(rest, `\`)
}

// parseURL is the basic URL parser of the URL Standard without a state to begin in. It reads every byte a
// bounded number of times.
func parseURL(text string, base *URL) (*URL, bool) {
	text = withoutNewlines(strings.TrimFunc(text, func(r rune) bool { return r <= ' ' }))
	u := &URL{}
	scheme, rest, ok := cutScheme(text)
	if !ok {
		switch {
		case base == nil:
			return nil, false
		case base.opaque:
			if !strings.HasPrefix(text, "#") {
				return nil, false
			}
			*u = *base
			u.setFragment(text[1:])
			return u, true
		case base.scheme == "file":
			u.scheme = "file"
			return u, u.parseFile(text, base)
		}
		u.scheme = base.scheme
		return u, u.parseRelative(text, base)
	}
	u.scheme = scheme
	switch {
	case scheme == "file":
		if base != nil && base.scheme != "file" {
			base = nil
		}
		return u, u.parseFile(rest, base)
	case u.special() && base != nil && base.scheme == scheme && !strings.HasPrefix(rest, "//"):
		return u, u.parseRelative(rest, base)
	case u.special():
		return u, u.parseAuthority(strings.TrimLeft(rest, `/\`))
	case strings.HasPrefix(rest, "//"):
		return u, u.parseAuthority(rest[2:])
	case strings.HasPrefix(rest, "/"):
		u.parsePath(rest[1:])
		return u, true
	}
	u.parseOpaquePath(rest)
	return u, true
}

// cutScheme returns the scheme that text begins with, and what comes after its colon.
func cutScheme(text string) (scheme, rest string, ok bool) {
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c|0x20 && c|0x20 <= 'z':
		case i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'):
		case i > 0 && c == ':':
			return strings.ToLower(text[:i]), text[i+1:], true
		default:
			return "", text, false
		}
	}
	return "", text, false
}

func (u *URL) parseRelative(rest string, base *URL) bool {
	if u.slash(rest) {
		rest = rest[1:]
		switch {
		case u.special() && u.slash(rest):
			return u.parseAuthority(strings.TrimLeft(rest, `/\`))
		case strings.HasPrefix(rest, "/"):
			return u.parseAuthority(rest[1:])
		}
		u.takeAuthority(base)
		u.parsePath(rest)
		return true
	}
	u.takeAuthority(base)
	u.takePath(base)
	u.parseAfter(rest, func(rest string) {
		u.shorten()
		u.parsePath(rest)
	})
	return true
}

func (u *URL) takeAuthority(base *URL) {
	u.username, u.password, u.host, u.hasHost, u.port = base.username, base.password, base.host, base.hasHost, base.port
}

// takePath copies path and query. The path is a copy: it may be shortened and lengthened.
func (u *URL) takePath(base *URL) {
	u.path = append([]string(nil), base.path...)
	u.query, u.hasQuery = base.query, base.hasQuery
}

// parseAfter parses what may come instead of a path, or has path parse one, which drops the query.
func (u *URL) parseAfter(rest string, path func(rest string)) {
	switch {
	case rest == "":
	case rest[0] == '?':
		u.parseQuery(rest[1:])
	case rest[0] == '#':
		u.setFragment(rest[1:])
	default:
		u.query, u.hasQuery = "", false
		path(rest)
	}
}

// parseFile parses what comes after "file:", or a reference relative to a file.
func (u *URL) parseFile(rest string, base *URL) bool {
	u.hasHost = true
	if !u.slash(rest) {
		if base == nil {
			u.parsePath(rest)
			return true
		}
		u.host, u.hasHost = base.host, base.hasHost
		u.takePath(base)
		u.parseAfter(rest, func(rest string) {
			if beginsWithDrive(rest) {
				u.path = nil
			} else {
				u.shorten()
			}
			u.parsePath(rest)
		})
		return true
	}
	rest = rest[1:]
	if !u.slash(rest) {
		if base != nil {
			u.host, u.hasHost = base.host, base.hasHost
			if !beginsWithDrive(rest) && len(base.path) > 0 && isDrive(base.path[0]) && base.path[0][1] == ':' {
				u.path = []string{base.path[0]}
			}
		}
		u.parsePath(rest)
		return true
	}
	rest = rest[1:]
	end := indexAny(rest, `/\?#`)
	if isDrive(rest[:end]) {
		u.parsePath(rest) // file://C:/x
		return true
	}
	if !u.setFileHost(rest[:end]) {
		return false
	}
	u.parsePathStart(rest[end:])
	return true
}

func (u *URL) setFileHost(text string) bool {
	host := ""
	if text != "" {
		var ok bool
		if host, ok = parseHost(text, true); !ok {
			return false
		}
		if host == "localhost" {
			host = ""
		}
	}
	u.host, u.hasHost = host, true
	return true
}

// parseAuthority parses what comes after the slashes.
func (u *URL) parseAuthority(rest string) bool {
	end := u.authorityEnd(rest)
	hostPort := rest[:end]
	if at := strings.LastIndexByte(hostPort, '@'); at >= 0 {
		username, password, _ := strings.Cut(hostPort[:at], ":")
		u.username, u.password = encode(username, inUserinfo), encode(password, inUserinfo)
		if hostPort = hostPort[at+1:]; hostPort == "" {
			return false
		}
	}
	host, port, hasPort := cutPort(hostPort)
	if host == "" && (hasPort || u.special()) {
		return false
	}
	parsed, ok := parseHost(host, u.special())
	if !ok || digits(port) < len(port) || !u.setPort(port) {
		return false
	}
	u.host, u.hasHost = parsed, true
	u.parsePathStart(rest[end:])
	return true
}

func (u *URL) authorityEnd(rest string) int {
	if u.special() {
		return indexAny(rest, `/\?#`)
	}
	return indexAny(rest, "/?#")
}

// indexAny returns where the first of some bytes is, or the length of text.
func indexAny(text, bytes string) int {
	if i := strings.IndexAny(text, bytes); i >= 0 {
		return i
	}
	return len(text)
}

// cutPort cuts at the first colon that is not in brackets.
func cutPort(text string) (host, port string, found bool) {
	brackets := false
	for i := range len(text) {
		switch text[i] {
		case '[':
			brackets = true
		case ']':
			brackets = false
		case ':':
			if !brackets {
				return text[:i], text[i+1:], true
			}
		}
	}
	return text, "", false
}

// digits returns how many digits text begins with.
func digits(text string) int {
	return len(text) - len(strings.TrimLeft(text, "0123456789"))
}

// setPort sets the port to a number, unless it is nothing or too large.
func (u *URL) setPort(number string) bool {
	if number == "" {
		return true
	}
	number = strings.TrimLeft(number, "0")
	if number == "" {
		number = "0"
	}
	if _, err := strconv.ParseUint(number, 10, 16); err != nil {
		return false
	}
	if standard, _ := defaultPort(u.scheme); number == standard {
		number = ""
	}
	u.port = number
	return true
}

// parsePathStart parses what comes after the authority.
func (u *URL) parsePathStart(rest string) {
	switch {
	case u.slash(rest):
		u.parsePath(rest[1:])
	case u.special(), rest != "" && rest[0] != '?' && rest[0] != '#':
		u.parsePath(rest)
	default:
		u.parseAfter(rest, nil)
	}
}

// parsePath adds segments to the path, and parses what comes after it.
func (u *URL) parsePath(rest string) {
	end := indexAny(rest, "?#")
	u.addSegments(rest[:end])
	u.parseAfter(rest[end:], nil)
}

func (u *URL) addSegments(text string) {
	separators := "/"
	if u.special() {
		separators = `/\`
	}
	for last := false; !last; {
		end := indexAny(text, separators)
		segment := encode(text[:end], inPath)
		if last = end == len(text); !last {
			text = text[end+1:]
		}
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case "..":
			u.shorten()
			segment = ""
		case ".":
			segment = ""
		default:
			if u.scheme == "file" && len(u.path) == 0 && isDrive(segment) {
				segment = segment[:1] + ":"
			}
			u.path = append(u.path, segment)
			continue
		}
		if last {
			u.path = append(u.path, segment)
		}
	}
}

// shorten drops the last segment, but never a drive.
func (u *URL) shorten() {
	n := len(u.path)
	if n == 0 || n == 1 && u.scheme == "file" && isDrive(u.path[0]) && u.path[0][1] == ':' {
		return
	}
	u.path = u.path[:n-1]
}

// isDrive reports whether text is a drive letter of Windows: "C:" or "C|".
func isDrive(text string) bool {
	return len(text) == 2 && 'a' <= text[0]|0x20 && text[0]|0x20 <= 'z' && (text[1] == ':' || text[1] == '|')
}

func beginsWithDrive(text string) bool {
	return len(text) >= 2 && isDrive(text[:2]) && (len(text) == 2 || strings.IndexByte(`/\?#`, text[2]) >= 0)
}

func (u *URL) parseOpaquePath(rest string) {
	end := indexAny(rest, "?#")
	path := rest[:end]
	u.opaque = true
	// A space at its end would be lost when the URL is parsed again.
	if end < len(rest) && strings.HasSuffix(path, " ") {
		path = path[:end-1]
		u.opaquePath = encode(path, inNothing) + "%20"
	} else {
		u.opaquePath = encode(path, inNothing)
	}
	u.parseAfter(rest[end:], nil)
}

func (u *URL) parseQuery(rest string) {
	end := indexAny(rest, "#")
	u.setQuery(rest[:end])
	if end < len(rest) {
		u.setFragment(rest[end+1:])
	}
}

func (u *URL) setQuery(text string) {
	set := inQuery
	if u.special() {
		set = inSpecialQuery
	}
	u.query, u.hasQuery = encode(text, set), true
}

func (u *URL) setFragment(text string) {
	u.fragment, u.hasFragment = encode(text, inFragment), true
}

// set does what the setters of URL do: nothing, when the value does not fit.
func (u *URL) set(p Part, text string) {
	switch p {
	case PartProtocol:
		u.setScheme(text)
	case PartUsername:
		if u.mayHaveCredentials() {
			u.username = encode(text, inUserinfo)
		}
	case PartPassword:
		if u.mayHaveCredentials() {
			u.password = encode(text, inUserinfo)
		}
	case PartHost, PartHostname:
		if !u.opaque {
			u.setHost(text[:u.authorityEnd(text)], p == PartHost)
		}
	case PartPort:
		if n := digits(text); u.mayHaveCredentials() && n > 0 {
			u.setPort(text[:n])
		} else if u.mayHaveCredentials() && text == "" {
			u.port = ""
		}
	case PartPathname:
		u.setPath(text)
	case PartSearch:
		u.query, u.hasQuery = "", false
		if text != "" {
			u.setQuery(strings.TrimPrefix(text, "?"))
		}
	case PartHash:
		u.fragment, u.hasFragment = "", false
		if text != "" {
			u.setFragment(strings.TrimPrefix(text, "#"))
		}
	}
}

// mayHaveCredentials reports whether u may have a username, a password and a port.
func (u *URL) mayHaveCredentials() bool { return u.host != "" && u.scheme != "file" }

func (u *URL) setScheme(text string) {
	scheme, _, ok := cutScheme(text + ":")
	standard, special := defaultPort(scheme)
	switch {
	case !ok, special != u.special():
	case scheme == "file" && (u.username != "" || u.password != "" || u.port != ""):
	case u.scheme == "file" && u.host == "":
	default:
		u.scheme = scheme
		if u.port == standard {
			u.port = ""
		}
	}
}

func (u *URL) setHost(text string, withPort bool) {
	if u.scheme == "file" {
		u.setFileHost(text)
		return
	}
	name, port, hasPort := cutPort(text)
	if hasPort && (!withPort || name == "") || name == "" && (u.special() || u.username != "" || u.password != "" || u.port != "") {
		return
	}
	host, ok := parseHost(name, u.special())
	if !ok {
		return
	}
	u.host, u.hasHost = host, true
	u.setPort(port[:digits(port)])
}

func (u *URL) setPath(text string) {
	if u.opaque {
		return
	}
	u.path = nil
	switch {
	case u.slash(text):
		u.addSegments(text[1:])
	case u.special(), text != "":
		u.addSegments(text)
	case !u.hasHost:
		u.path = []string{""}
	}
}

// The characters that are percent-encoded in some place, besides those that are everywhere: the
// controls, and what is not ASCII.
const (
	inNothing      = ""
	inFragment     = " \"<>`"
	inQuery        = " \"#<>"
	inSpecialQuery = inQuery + "'"
	inPath         = inQuery + "?^`{}"
	inUserinfo     = inPath + `/:;=@[\]|`
)

// encode percent-encodes text.
func encode(text, set string) string {
	clean := 0
	for clean < len(text) && !mustEncode(text[clean], set) {
		clean++
	}
	if clean == len(text) {
		return text
	}
	out := make([]byte, clean, len(text)+len(text)/2+2)
	copy(out, text)
	for i := clean; i < len(text); i++ {
		c := text[i]
		if mustEncode(c, set) {
			const hex = "0123456789ABCDEF"
			out = append(out, '%', hex[c>>4], hex[c&15])
			continue
		}
		out = append(out, c)
	}
	return string(out)
}

func mustEncode(c byte, set string) bool {
	return c <= 0x1f || c >= 0x7f || strings.IndexByte(set, c) >= 0
}

// decode decodes what is percent-encoded, and replaces what is not UTF-8 then.
func decode(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, text[i])
	}
	return strings.ToValidUTF8(string(out), string(utf8.RuneError))
}

// withoutNewlines removes what is ignored everywhere in a URL.
func withoutNewlines(text string) string {
	if !strings.ContainsAny(text, "\t\n\r") {
		return text
	}
	return strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(text)
}
