package all

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKindsAreToldApart(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		require.Regexp(t, regexp.MustCompile(`^[a-z0-9]+$`), k.Name)
		require.False(t, seen[k.Name], "%s is there twice", k.Name)
		seen[k.Name] = true
		require.NotEmpty(t, k.Doc)
		require.NotNil(t, k.New)
	}
}
