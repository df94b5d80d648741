package sqlgrant

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	a, err := parseAddress(" postgresql://shop:p%40ss@[::1]:6432/orders?sslmode=disable\n")
	if want := (address{host: "::1", port: 6432, user: "shop", password: "p@ss", database: "orders", plain: true}); err != nil || a != want {
		t.Errorf("parseAddress = %+v, %v; want %+v", a, err, want)
	}
	for _, text := range []string{
		"", "orders", "host=db user=shop", "mysql://u:hidden@h/d", "postgres://u:hidden@/d", "postgres://u:hidden@h1,h2/d", "postgres://:hidden@h/d",
		"postgres://u:hidden@h", "postgres://u:hidden@h/d/e", "postgres://u:hidden@h:0/d", "postgres://u:hidden@h:99999/d", "postgres://u:hidden@h/d?sslmode=require",
		"postgres://u:hidden@h/d?sslmode=verify-full&sslmode=disable", "postgres://u:hidden@h/d?sslrootcert=/etc/passwd", "postgres://u:hidden@h/d?options=-csearch_path%3Dx",
		"postgres://u:hidden@h/d?passfile=/root/.pgpass", "postgres://u:hidden@h/d?service=x", "postgres://u:hidden@h/d?sslmode=%zz", "postgres://u:hidden@h/d#x", "postgres://u:hid den@h/d",
		"postgres://u:hidden@%2Fvar%2Frun/d", "postgres://u:hidden@h/" + strings.Repeat("d", maxAddress),
	} {
		a, err := parseAddress(text)
		if err == nil {
			t.Errorf("parseAddress(%.60q) = %+v", text, a)
		} else if strings.Contains(err.Error(), "hidden") || len(err.Error()) > 200 {
			t.Errorf("the error of %.60q holds a part of it: %v", text, err)
		}
	}
}
