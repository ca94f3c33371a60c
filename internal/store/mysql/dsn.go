package mysql

import (
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	driversql "github.com/go-sql-driver/mysql"
)

// example is shown when a data source name is wrong. The real one has a password, and is never shown.
const example = "user:password@tcp(host:3306)/database"

// parse reads a data source name and fixes what the store depends on.
func parse(dsn string) (*driversql.Config, error) {
	if dsn == "" {
		return nil, fmt.Errorf("mysql_data_source_name is empty: set it to %s", example)
	}
	cfg, err := driversql.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("mysql_data_source_name: %w: the form is %s", err, example)
	}
	switch {
	case cfg.DBName == "":
		return nil, fmt.Errorf("mysql_data_source_name names no database: the form is %s", example)
	case cfg.MultiStatements:
		return nil, errors.New("mysql_data_source_name: parameter multiStatements is not allowed: remove it")
	case cfg.AllowAllFiles:
		return nil, errors.New("mysql_data_source_name: parameter allowAllFiles is not allowed: remove it")
	}
	cfg.InterpolateParams = true
	cfg.ClientFoundRows = false
	cfg.ParseTime = false
	cfg.ColumnsWithAlias = false
	cfg.Collation = "utf8mb4_bin"
	cfg.MaxAllowedPacket = maxPacket
	cfg.Timeout = orDefault(cfg.Timeout, dialTimeout)
	cfg.ReadTimeout = orDefault(cfg.ReadTimeout, readTimeout)
	cfg.WriteTimeout = orDefault(cfg.WriteTimeout, writeTimeout)
	cfg.Logger = log.New(io.Discard, "", 0) // the errors are returned as well
	if cfg.Params == nil {
		cfg.Params = make(map[string]string)
	}
	cfg.Params["time_zone"] = "'+00:00'"
	cfg.Params["sql_mode"] = "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'"
	return cfg, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
