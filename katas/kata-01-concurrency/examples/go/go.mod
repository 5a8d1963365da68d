module kata01

go 1.19
