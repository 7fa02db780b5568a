package yamlfile

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestColonsInListsInMapsStayText(t *testing.T) {
	for _, text := range []string{
		"broker: {listen: [tcp://127.0.0.1:1883]}",
		"broker: {listen: [ tcp://127.0.0.1:1883 ]}",
		"broker:\n  listen: [tcp://127.0.0.1:1883]\n",
		"broker:\n  listen:\n    - tcp://127.0.0.1:1883\n",
	} {
		var v struct {
			Broker struct {
				Listen []string `yaml:"listen"`
			} `yaml:"broker"`
		}
		require.NoError(t, Decode("x.yaml", []byte(text), &v), text)
		require.Equal(t, []string{"tcp://127.0.0.1:1883"}, v.Broker.Listen, text)
	}
}

func TestMapsInListsInMapsStayMaps(t *testing.T) {
	var v map[string][]map[string]any
	require.NoError(t, Decode("x.yaml", []byte(`a: [b: 1, "c": 2, {d: e:f, g: [h:i, j:k:l]}]`), &v))
	require.Equal(t, map[string][]map[string]any{"a": {{"b": 1.0}, {"c": 2.0}, {"d": "e:f", "g": []any{"h:i", "j:k:l"}}}}, normal(v))
}

// normal makes every number a float64, whatever type the decoder chose.
func normal(v map[string][]map[string]any) map[string][]map[string]any {
	for _, list := range v {
		for _, m := range list {
			for k, x := range m {
				switch n := x.(type) {
				case int64:
					m[k] = float64(n)
				case uint64:
					m[k] = float64(n)
				case int:
					m[k] = float64(n)
				}
			}
		}
	}
	return v
}
