-- The shop's tables: 2,000 products, 5,000 customers, 50,000 orders. Nothing in it is random, so every run is alike.
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE USER 'shop'@'127.0.0.1' IDENTIFIED BY 'shop';
GRANT ALL ON shop.* TO 'shop'@'127.0.0.1';
USE shop;

CREATE TABLE products (
    id INT PRIMARY KEY,
    name VARCHAR(60) NOT NULL,
    price_cents INT NOT NULL,
    stock INT NOT NULL,
    featured TINYINT NOT NULL,
    KEY by_name (name),
    KEY by_featured (featured)
);
INSERT INTO products
SELECT seq,
    CONCAT(ELT(1 + seq MOD 8, 'amber', 'birch', 'cobalt', 'dusk', 'ember', 'fjord', 'grain', 'haze'), ' ',
        ELT(1 + CRC32(seq) MOD 6, 'kettle', 'lamp', 'chair', 'notebook', 'blanket', 'mug'), ' ', seq),
    500 + CRC32(CONCAT('price', seq)) MOD 20000,
    100000,
    seq MOD 100 = 0
FROM seq_1_to_2000;

CREATE TABLE customers (
    id INT PRIMARY KEY,
    email VARCHAR(80) NOT NULL,
    name VARCHAR(60) NOT NULL,
    UNIQUE KEY by_email (email)
);
INSERT INTO customers
SELECT seq, CONCAT('customer', seq, '@shop.example'), CONCAT('Customer ', seq) FROM seq_1_to_5000;

CREATE TABLE orders (
    id INT AUTO_INCREMENT PRIMARY KEY,
    customer_id INT NOT NULL,
    customer_email VARCHAR(80) NOT NULL, -- searched by the application, and without an index: fault number one
    status VARCHAR(10) NOT NULL,
    total_cents INT NOT NULL,
    address VARCHAR(120) NOT NULL,
    created_at DATETIME NOT NULL,
    KEY by_customer (customer_id)
);
INSERT INTO orders (customer_id, customer_email, status, total_cents, address, created_at)
SELECT customer, CONCAT('customer', customer, '@shop.example'), ELT(1 + seq MOD 3, 'new', 'paid', 'shipped'),
    500 + CRC32(seq) MOD 50000,
    CONCAT('House ', seq MOD 900, ', Harbour Road, Lighthouse District, 10', seq MOD 1000, ' Port of Shop, third door on the left'),
    TIMESTAMP '2024-01-01 00:00:00' + INTERVAL seq MINUTE
FROM (SELECT seq, 1 + CRC32(CONCAT('customer', seq)) MOD 5000 AS customer FROM seq_1_to_50000) AS generated;
ANALYZE TABLE products, customers, orders;
