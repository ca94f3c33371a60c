package sqlbase

import (
	"strings"
	"testing"
)

func TestTemplates(t *testing.T) {
	mysql := &Store{dialect: &Dialect{Hints: true, Now: "NOW()"}}
	sqlite := &Store{dialect: &Dialect{NowFunc: func() string { return "42" }}}
	for _, tc := range []struct {
		template      string
		lists         []int
		mysql, sqlite string
	}{
		{"SELECT {now}", nil, "SELECT NOW()", "SELECT 42"},
		{"SELECT a FROM t {index i} WHERE b IN ({list}) {lock}", []int{3},
			"SELECT a FROM t FORCE INDEX (i) WHERE b IN (?,?,?) FOR UPDATE", "SELECT a FROM t  WHERE b IN (?,?,?) "},
		{"b IN ({list}) AND c IN ({list})", []int{1, 2}, "b IN (?) AND c IN (?,?)", "b IN (?) AND c IN (?,?)"},
		{"b IN ({list})", []int{0}, "b IN (NULL)", "b IN (NULL)"},
		{"{delete t i} WHERE a < {now}", nil, "DELETE t FROM t FORCE INDEX (i) WHERE a < NOW()", "DELETE FROM t WHERE a < 42"},
		{"{delete t i a} AND b IN ({list})", []int{2, 1},
			"DELETE t FROM (SELECT ? AS id UNION ALL SELECT ?) AS wanted STRAIGHT_JOIN t FORCE INDEX (i) ON t.a = wanted.id AND b IN (?)",
			"DELETE FROM t WHERE a IN (?,?) AND b IN (?)"},
		{"SELECT 1 FROM ({pairs a b}) AS p {then} t {index i} ON t.c = p.a AND d IN ({list})", []int{2, 1},
			"SELECT 1 FROM (SELECT ? AS a, ? AS b UNION ALL SELECT ?, ?) AS p STRAIGHT_JOIN t FORCE INDEX (i) ON t.c = p.a AND d IN (?)",
			"SELECT 1 FROM (SELECT column1 AS a, column2 AS b FROM (VALUES (?, ?), (?, ?))) AS p CROSS JOIN t  ON t.c = p.a AND d IN (?)"},
		{"INSERT INTO t VALUES {rows} {ignore a}", nil,
			"INSERT INTO t VALUES {rows} ON DUPLICATE KEY UPDATE a = a", "INSERT INTO t VALUES {rows} ON CONFLICT DO NOTHING"},
		{"{upsert a, b: c d}", nil,
			"ON DUPLICATE KEY UPDATE c = VALUES(c), d = VALUES(d)", "ON CONFLICT (a, b) DO UPDATE SET c = excluded.c, d = excluded.d"},
	} {
		for range 2 { // the second time from the cache
			if got := mysql.sql(tc.template, tc.lists...); got != tc.mysql {
				t.Errorf("%s\n got %s\nwant %s", tc.template, got, tc.mysql)
			}
			if got := sqlite.sql(tc.template, tc.lists...); got != tc.sqlite {
				t.Errorf("%s\n got %s\nwant %s", tc.template, got, tc.sqlite)
			}
		}
	}
}

func TestUnion(t *testing.T) {
	parts := []statement{{"a ?", []any{1}}, {"b ?", []any{2}}, {"c ?", []any{3}}}
	joined := (&Store{dialect: &Dialect{UnionParts: 2}}).union(parts)
	if len(joined) != 2 || joined[0].text != "(a ?) UNION ALL (b ?)" || len(joined[0].args) != 2 || joined[1].text != "(c ?)" {
		t.Errorf("joined to %+v", joined)
	}
	if apart := (&Store{dialect: &Dialect{UnionParts: 1}}).union(parts); len(apart) != 3 || apart[0].text != "a ?" {
		t.Errorf("left apart as %+v", apart)
	}
}

func TestUnknownMarkIsAMistake(t *testing.T) {
	for _, template := range []string{"{unknown}", "{now"} {
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(v.(string), strings.Trim(template, "{}")) {
					t.Errorf("%s: %v, want a panic that shows it", template, v)
				}
			}()
			(&Dialect{}).expand(template)
		}()
	}
}
