package sqlgrant

import (
	"net/url"
	"strconv"
	"strings"

	"sallyport/internal/problem"
)

// address is where a PostgreSQL server is, and who is asking.
type address struct {
	host                     string
	port                     uint16
	user, password, database string
	// plain says that there is no TLS, which is allowed to loopback addresses only.
	plain bool
}

// maxAddress bounds the text of an address, in bytes.
const maxAddress = 4 << 10

// parseAddress reads an address of the form postgres://user:password@host:port/database?sslmode=verify-full. Settings that make
// the client read files, or trust a server that it has not verified, are not among those it knows. No error names a part of it.
func parseAddress(text string) (address, error) {
	text = strings.TrimSpace(text)
	u, err := url.Parse(text)
	if err != nil || len(text) > maxAddress || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Opaque != "" || u.Fragment != "" {
		return address{}, badAddress("it is not a URL that begins with postgres://")
	}
	a := address{host: u.Hostname(), port: 5432, user: u.User.Username(), database: strings.TrimPrefix(u.Path, "/")}
	a.password, _ = u.User.Password()
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return address{}, badAddress("its port is out of range")
		}
		a.port = uint16(n)
	}
	switch {
	case a.host == "" || strings.ContainsAny(a.host, "/,"):
		return address{}, badAddress("it names no host, or several")
	case a.user == "":
		return address{}, badAddress("it names no user")
	case a.database == "" || strings.Contains(a.database, "/"):
		return address{}, badAddress("it names no database")
	}
	settings, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return address{}, badAddress("its settings are malformed")
	}
	for name, values := range settings {
		switch {
		case name != "sslmode" || len(values) != 1:
			return address{}, badAddress("sslmode is the one setting that it may have")
		case values[0] == "disable":
			a.plain = true
		case values[0] != "verify-full":
			return address{}, badAddress("its sslmode is neither verify-full, which is the default, nor disable")
		}
	}
	return a, nil
}

func badAddress(why string) error {
	return problem.New(problem.Invalid, "grant.sql_address", "the secret does not hold the address of a database: %s", why).
		WithHint("set the secret to postgres://USER:PASSWORD@HOST:PORT/DATABASE")
}
